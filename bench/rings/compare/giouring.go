//go:build giouring

package main

import (
	"net"
	"path/filepath"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

func init() { makers = append(makers, maker{"giouring", newGiouring}) }

type giou struct {
	ring       *giouring.Ring
	file, conn int
	b          []byte
	n          uint64
}

func newGiouring(dir string, ln *net.TCPListener) (engine, error) {
	e := &giou{}
	var err error
	if e.ring, err = giouring.CreateRing(64); err != nil {
		return nil, err
	}
	if e.file, err = openFile(filepath.Join(dir, "giouring")); err != nil {
		return nil, err
	}
	if e.b, err = pages(writeMax); err != nil {
		return nil, err
	}
	e.conn, err = accept(ln)
	return e, err
}

// entry is the next one, emptied: the library leaves in it what was there.
func (e *giou) entry() *giouring.SubmissionQueueEntry {
	s := e.ring.GetSQE()
	*s = giouring.SubmissionQueueEntry{}
	return s
}

// await submits and waits for so many completions; it gives the first's result.
func (e *giou) await(count uint32) (int, error) {
	e.n++
	if _, err := e.ring.SubmitAndWait(count); err != nil {
		return 0, err
	}
	first := 0
	for i := range count {
		c, err := e.ring.WaitCQE()
		if err != nil {
			return 0, err
		}
		res := int(c.Res)
		e.ring.CQESeen(c)
		if res < 0 {
			return 0, unix.Errno(-res)
		}
		if i == 0 {
			first = res
		}
	}
	return first, nil
}

func (e *giou) nop() error {
	e.entry().PrepareNop()
	_, err := e.await(1)
	return err
}

func (e *giou) at(from int) uintptr { return uintptr(unsafe.Pointer(&e.b[from])) } // mapped: it does not move

func (e *giou) write(bytes int, offset int64) error {
	e.entry().PrepareWrite(e.file, e.at(0), uint32(bytes), uint64(offset))
	n, err := e.await(1)
	if err == nil && n != bytes {
		err = errWhole
	}
	return err
}

func (e *giou) writeSync(bytes int, offset int64) error {
	w := e.entry()
	w.PrepareWrite(e.file, e.at(0), uint32(bytes), uint64(offset))
	w.Flags |= uint8(giouring.SqeIOLink)
	e.entry().PrepareFsync(e.file, giouring.FsyncDatasync)
	_, err := e.await(2)
	return err
}

func (e *giou) echo() error {
	for got := 0; got < messageBytes; {
		e.entry().PrepareRecv(e.conn, e.at(got), uint32(messageBytes-got), 0)
		n, err := e.await(1)
		if err != nil || n == 0 {
			return errWhole
		}
		got += n
	}
	e.entry().PrepareSend(e.conn, e.at(0), messageBytes, 0)
	_, err := e.await(1)
	return err
}

func (e *giou) calls() uint64 { return e.n }

func (e *giou) close() {
	e.ring.QueueExit()
	_ = unix.Close(e.conn)
	_ = unix.Close(e.file)
	_ = unix.Munmap(e.b)
}
