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
	Notes    []string      // what could not be done and serving does without
	held     *held
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
	note := ""
	if dir.held, note, err = lock(path); err != nil {
		return nil, err
	}
	if note != "" {
		dir.Notes = append(dir.Notes, note)
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

// held is a directory that this process has locked: as long as its files are open no
// other process can lock it.
type held struct {
	dir  *os.File
	file *os.File // LOCK; nil: there is none
}

// Close lets another process have the directory.
func (h *held) Close() {
	if h.file != nil {
		h.file.Close()
	}
	h.dir.Close()
}

// lock takes a directory for this process: the directory itself, and the file LOCK in it,
// which has the number of the process. Versions before 0.3.0 lock that file alone. A disk
// without a free block or inode for LOCK keeps no one from the directory: note says what
// is missing. The error of a directory that is taken names the process that holds it.
func lock(path string) (h *held, note string, err error) {
	name := filepath.Join(path, "LOCK")
	dir, err := os.Open(path)
	if err != nil {
		return nil, "", mayNot(path, err)
	}
	h = &held{dir: dir}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	h.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	switch {
	case isFull(err):
		h.file, note = nil, fmt.Sprintf("making %s: %v: the directory itself is locked, against this version of Tailbound and later ones", name, err)
	case err != nil:
		return h, "", mayNot(path, err)
	}
	for _, file := range []*os.File{h.dir, h.file} {
		if file == nil {
			continue
		}
		switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case errors.Is(err, unix.EWOULDBLOCK):
			return h, "", fmt.Errorf("data directory %s is in use: %s holds %s", path, holder(name), name)
		case err != nil && (file == h.file || h.file == nil): // file systems over a network lock no directories
			return h, "", fmt.Errorf("locking %s: %w", file.Name(), err)
		}
	}
	if h.file != nil {
		// What stands there is overwritten before it is cut off: that takes no new block.
		text := strconv.Itoa(os.Getpid()) + "\n"
		_, err := h.file.WriteAt([]byte(text), 0)
		if err == nil {
			err = h.file.Truncate(int64(len(text)))
		}
		if err != nil {
			note = fmt.Sprintf("writing %s: %v: a process that finds the directory locked will not know by which process", name, err)
		}
	}
	return h, note, nil
}

// isFull reports that there is no space, no free inode, or no quota left.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// holder names the process whose number stands in the file LOCK.
func holder(name string) string {
	text, _ := os.ReadFile(name)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return "another process"
	}
	who := fmt.Sprintf("process %d", pid)
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		who += " (" + strings.TrimSpace(string(name)) + ")"
	}
	return who
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
