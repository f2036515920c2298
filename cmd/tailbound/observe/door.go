package observe

import (
	"net"
	"sync"
	"time"
)

// listenAgainEvery is how long after a failure a listener is tried again. A test shortens
// it.
var listenAgainEvery = 5 * time.Second

// door is a listener that the broker can serve without. Where it cannot be made, as on a
// disk without a free inode or where another process has the address, that is said and
// tried again. It is this function:
//
//	for {
//		for listen() fails { said(error), the first time; await listenAgainEvery }
//		said(nil), unless it was the first try
//		serve(listener); return if that ended because of close
//		said(error)
//	}
type door struct {
	listen func() (net.Listener, error)
	serve  func(net.Listener) error // until the listener is closed, or fails
	said   func(err error)          // nil: it could not be made before, and now is

	mu       sync.Mutex
	listener net.Listener // nil while there is none
	closed   bool
}

// open makes the listener and serves it on a goroutine. If it cannot be made that is
// tried again on a goroutine.
func (d *door) open() {
	if err := d.try(); err != nil {
		d.said(err)
		go d.again()
	}
}

// again tries until the listener is made, or the door closed.
func (d *door) again() {
	for {
		time.Sleep(listenAgainEvery)
		if d.try() == nil {
			break
		}
	}
	if d.isOpen() {
		d.said(nil)
	}
}

// try makes the listener once. After close it does nothing.
func (d *door) try() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	listener, err := d.listen()
	if err != nil {
		return err
	}
	d.listener = listener
	go func() {
		err := d.serve(listener)
		listener.Close() // a second time, after close: of no effect
		d.mu.Lock()
		d.listener = nil
		closed := d.closed
		d.mu.Unlock()
		if !closed {
			d.said(err)
			d.again()
		}
	}()
	return nil
}

// isOpen reports that there is a listener.
func (d *door) isOpen() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listener != nil
}

// close closes the listener. None is made after it.
func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.listener != nil {
		d.listener.Close()
	}
}
