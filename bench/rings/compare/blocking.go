package main

import (
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var makers = []maker{{"our ring", newOurs}, {"blocking calls", newBlocking}, {"go-uring", newGoUring}}

// blocking is the system calls without a ring.
type blocking struct {
	file, conn int
	b          []byte
	n          uint64
}

func newBlocking(dir string, ln *net.TCPListener) (engine, error) {
	e := &blocking{}
	var err error
	if e.file, err = openFile(filepath.Join(dir, "blocking")); err != nil {
		return nil, err
	}
	if e.b, err = pages(writeMax); err != nil {
		return nil, err
	}
	e.conn, err = accept(ln)
	return e, err
}

// nop is the least a call can do: getppid.
func (e *blocking) nop() error {
	e.n++
	unix.Getppid()
	return nil
}

func (e *blocking) write(bytes int, offset int64) error {
	e.n++
	n, err := unix.Pwrite(e.file, e.b[:bytes], offset)
	if err == nil && n != bytes {
		err = errWhole
	}
	return err
}

func (e *blocking) writeSync(bytes int, offset int64) error {
	if err := e.write(bytes, offset); err != nil {
		return err
	}
	e.n++
	return unix.Fdatasync(e.file)
}

func (e *blocking) echo() error {
	for got := 0; got < messageBytes; {
		e.n++
		n, err := unix.Read(e.conn, e.b[got:messageBytes])
		if err != nil || n == 0 {
			return errWhole
		}
		got += n
	}
	e.n++
	_, err := unix.Write(e.conn, e.b[:messageBytes])
	return err
}

func (e *blocking) calls() uint64 { return e.n }

func (e *blocking) close() {
	_ = unix.Close(e.conn)
	_ = unix.Close(e.file)
	_ = unix.Munmap(e.b)
}
