package main

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// ours is the ring of the product, with its spin.
type ours struct {
	ring   *ioring.Kernel
	socket uint32
	buf    mem.Block
	path   mem.Block
	vector mem.Block
}

const (
	ourListener = 0
	ourFile     = 1
)

func newOurs(dir string, ln *net.TCPListener) (engine, error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	features, err := ioring.Probe()
	if err != nil {
		return nil, err
	}
	e := &ours{}
	if e.ring, err = ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: 2, Sockets: 4, RootFD: root, ReceiveBuffers: 8, Features: features.Mask, SpinNS: 20e3}); err != nil {
		return nil, err
	}
	arena, err := mem.Map(4<<20, mem.Options{})
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		to *mem.Block
		n  int
	}{{&e.buf, 1 << 20}, {&e.path, 4096}, {&e.vector, 4096}} {
		if *c.to, err = arena.Allocate("rings", c.n, 4096); err != nil {
			return nil, err
		}
	}
	f, err := ln.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, err
	}
	if err := e.ring.InstallFile(ourListener, int(f.Fd())); err != nil {
		return nil, err
	}
	n, err := e.await(ioring.Op{Code: ioring.Accept, File: ourListener, Buf: e.path})
	if err != nil {
		return nil, err
	}
	e.socket = uint32(n)
	copy(e.path.Bytes(), "ours\x00")
	if _, err := e.await(ioring.Op{Code: ioring.Open, File: ourFile, Arg: ioring.OpenCreate, Buf: e.path}); err != nil {
		return nil, err
	}
	for at := 0; at < fileBytes; at += e.buf.Len() {
		if _, err := e.await(ioring.Op{Code: ioring.Write, File: ourFile, Offset: uint64(at), Buf: e.buf}); err != nil {
			return nil, err
		}
	}
	_, err = e.await(ioring.Op{Code: ioring.Sync, File: ourFile})
	return e, err
}

// await does one operation.
func (e *ours) await(op ioring.Op) (int, error) {
	op.Token = ioring.MakeToken(ioring.KindShard, 0, 0)
	if !e.ring.Push(op) {
		return 0, errWhole
	}
	return e.reap()
}

func (e *ours) reap() (int, error) {
	var c [1]ioring.Completion
	for e.ring.Reap(c[:]) == 0 {
		e.ring.Wait(ioring.Never)
	}
	if c[0].Result < 0 {
		return 0, unix.Errno(-c[0].Result)
	}
	return int(c[0].Result), nil
}

func (e *ours) nop() error {
	_, err := e.await(ioring.Op{Code: ioring.Nop})
	return err
}

func (e *ours) write(bytes int, offset int64) error {
	n, err := e.await(ioring.Op{Code: ioring.Write, File: ourFile, Offset: uint64(offset), Buf: e.buf.Slice(0, bytes)})
	if err == nil && n != bytes {
		err = errWhole
	}
	return err
}

func (e *ours) writeSync(bytes int, offset int64) error {
	token := ioring.MakeToken(ioring.KindShard, 0, 0)
	e.ring.Push(ioring.Op{Token: token, Code: ioring.Write, Flags: ioring.FlagLink, File: ourFile, Offset: uint64(offset), Buf: e.buf.Slice(0, bytes)})
	e.ring.Push(ioring.Op{Token: token, Code: ioring.Sync, File: ourFile})
	n, err := e.reap()
	_, synced := e.reap()
	switch {
	case err != nil:
		return err
	case n != bytes && n != 0: // the two complete in any order; a sync is 0
		return errWhole
	}
	return synced
}

func (e *ours) echo() error {
	for got := 0; got < messageBytes; {
		n, err := e.await(ioring.Op{Code: ioring.Recv, File: e.socket, Buf: e.buf.Slice(got, messageBytes-got)})
		if err != nil || n == 0 {
			return errWhole
		}
		got += n
	}
	ioring.SetPiece(e.vector, 0, e.buf.Bytes()[:messageBytes])
	_, err := e.await(ioring.Op{Code: ioring.Send, File: e.socket, Arg: 1, Buf: e.vector})
	return err
}

func (e *ours) calls() uint64 { return e.ring.Stats.Enters }

func (e *ours) close() { e.ring.Close() }
