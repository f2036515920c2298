package datadir

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

// Directory is a data directory that this process holds, to serve it.
type Directory struct {
	Path     string        // absolute
	Root     int           // its file descriptor
	Disk     ioring.Direct // what its file system needs for direct I/O
	Buffered bool          // there is no direct I/O
	held     *os.File
}

// Open makes the directory if it is missing, and holds it until Close. A file system
// without direct I/O is refused unless buffered is set.
func Open(path string, buffered bool) (*Directory, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, mayNot(path, err)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	dir := &Directory{Path: full, Root: -1}
	if dir.held, err = lock(path); err != nil {
		return nil, err
	}
	if dir.Root, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		dir.Close()
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if dir.Disk, err = ioring.DirectIO(dir.Root); err != nil {
		if !buffered {
			dir.Close()
			return nil, fmt.Errorf("data directory %s: %w; choose a directory on ext4 or XFS, or --buffered to try things out without durability", path, err)
		}
		dir.Buffered = true
	}
	return dir, nil
}

// Close lets another process have the directory.
func (d *Directory) Close() {
	if d.Root >= 0 {
		unix.Close(d.Root)
	}
	d.held.Close()
}

// lock takes the directory for this process: as long as the file is open no other
// process can. The error of a directory that is taken names the process that holds it.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "LOCK")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, mayNot(dir, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
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
	if err := file.Truncate(0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return file, nil
}

// mayNot is the error of a directory that cannot be made or written to, with what to do
// about it.
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
