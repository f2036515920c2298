package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
)

// directory is the data directory, held by this process.
type directory struct {
	path     string // absolute
	lock     *os.File
	root     int
	disk     ioring.Direct
	buffered bool // it has no direct I/O
}

// openDirectory makes the data directory where it is missing, and takes it.
// Without direct I/O it is refused, or buffered where that will do.
func openDirectory(path string, buffered bool) (*directory, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, mayNot(path, err)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &directory{path: full, root: -1}
	if d.lock, err = lockDirectory(path); err != nil {
		return nil, err
	}
	if d.root, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		d.close()
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if d.disk, err = ioring.DirectIO(d.root); err != nil {
		if !buffered {
			d.close()
			return nil, fmt.Errorf("data directory %s: %w; choose a directory on ext4 or XFS, or --buffered to try things out without durability", path, err)
		}
		d.buffered = true
	}
	return d, nil
}

func (d *directory) close() {
	if d.root >= 0 {
		unix.Close(d.root)
	}
	d.lock.Close()
}

// lockDirectory takes the data directory for this process until its end. It
// says who holds it where it is taken.
func lockDirectory(dir string) (*os.File, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, mayNot(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		text, _ := os.ReadFile(path)
		holder := "another process"
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			holder = fmt.Sprintf("process %d", pid)
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
				holder += " (" + strings.TrimSpace(string(name)) + ")"
			}
		}
		return nil, fmt.Errorf("data directory %s is in use: %s holds %s", dir, holder, path)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return f, nil
}

// mayNot is about a data directory that cannot be made or written to.
func mayNot(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("data directory %s: %w; user %d may not write there: choose another --data-dir, or make it that user's (chown)", dir, err, os.Geteuid())
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("data directory %s: %w; choose another --data-dir", dir, err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, os.ErrExist):
		return fmt.Errorf("data directory %s: %w; it is, or lies in, a file: choose another --data-dir", dir, err)
	}
	return fmt.Errorf("data directory %s: %w", dir, err)
}
