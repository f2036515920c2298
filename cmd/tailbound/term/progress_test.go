package term

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProgressLine(t *testing.T) {
	for _, x := range []struct {
		done, total int64
		want        string
	}{
		{0, 4096, "read [                              ] 0%, 0 B of 4 KiB"},
		{2048, 4096, "read [===============               ] 50%, 2 KiB of 4 KiB"},
		{4096, 4096, "read [==============================] 100%, 4 KiB of 4 KiB"},
		{9999, 4096, "read [==============================] 100%, 4 KiB of 4 KiB"},
	} {
		if got := progressLine("read", x.done, x.total); got != x.want {
			t.Errorf("%d of %d: %q, want %q", x.done, x.total, got, x.want)
		}
	}
}

// A bar is drawn on a terminal, and is gone at the end.
func TestProgressInATerminal(t *testing.T) {
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	if NewProgress(w, "read") != nil {
		t.Error("there is a bar for a pipe")
	}
	var none *Progress
	none.At(1, 2)
	none.End()
	master, slave := terminal(t)
	p := NewProgress(slave, "read")
	if p == nil {
		t.Fatal("there is none for a terminal")
	}
	p.At(1, 2) // too soon
	p.next = time.Time{}
	p.At(1, 2)
	p.next = time.Now().Add(time.Hour)
	p.At(2, 2)
	p.End()
	p.End()
	slave.WriteString("|")
	var got bytes.Buffer
	for !strings.HasSuffix(got.String(), "|") {
		if _, err := io.CopyN(&got, master, 1); err != nil {
			t.Fatal(err)
		}
	}
	if want := "\r\x1b[K" + progressLine("read", 1, 2) + "\r\x1b[K|"; got.String() != want {
		t.Errorf("%q, want %q", got.String(), want)
	}
}

// terminal is a pair of files of which the second is a terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	if slave, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(number)), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
