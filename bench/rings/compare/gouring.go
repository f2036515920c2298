package main

import (
	"net"
	"path/filepath"

	"github.com/godzie44/go-uring/uring"
	"golang.org/x/sys/unix"
)

// goUring is what go-uring can do: it has no fsync and no fixed files.
type goUring struct {
	ring       *uring.Ring
	file, conn int
	b          []byte
	n          uint64
}

func newGoUring(dir string, ln *net.TCPListener) (engine, error) {
	e := &goUring{}
	var err error
	if e.ring, err = uring.New(64); err != nil {
		return nil, err
	}
	if e.file, err = openFile(filepath.Join(dir, "gouring")); err != nil {
		return nil, err
	}
	if e.b, err = pages(writeMax); err != nil {
		return nil, err
	}
	e.conn, err = accept(ln)
	return e, err
}

func (e *goUring) do(op uring.Operation) (int, error) {
	if err := e.ring.QueueSQE(op, 0, 1); err != nil {
		return 0, err
	}
	e.n++
	c, err := e.ring.SubmitAndWaitCQEvents(1)
	if err != nil {
		return 0, err
	}
	n, err := int(c.Res), c.Error()
	e.ring.SeenCQE(c)
	return n, err
}

func (e *goUring) nop() error {
	_, err := e.do(uring.Nop())
	return err
}

func (e *goUring) write(bytes int, offset int64) error {
	n, err := e.do(uring.Write(uintptr(e.file), e.b[:bytes], uint64(offset)))
	if err == nil && n != bytes {
		err = errWhole
	}
	return err
}

func (e *goUring) writeSync(int, int64) error { return errCannot }

func (e *goUring) echo() error {
	for got := 0; got < messageBytes; {
		n, err := e.do(uring.Recv(uintptr(e.conn), e.b[got:messageBytes], 0))
		if err != nil || n == 0 {
			return errWhole
		}
		got += n
	}
	_, err := e.do(uring.Send(uintptr(e.conn), e.b[:messageBytes], 0))
	return err
}

func (e *goUring) calls() uint64 { return e.n }

func (e *goUring) close() {
	_ = e.ring.Close()
	_ = unix.Close(e.conn)
	_ = unix.Close(e.file)
	_ = unix.Munmap(e.b)
}
