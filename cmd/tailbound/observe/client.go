package observe

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// client is a connection to the socket of one broker.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// dial connects to the broker that serves a data directory.
func dial(dir string) (*client, error) {
	path := filepath.Join(dir, profileSocket)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no broker serves %s: %s is not there (give the --data-dir of one that runs)", dir, path)
	}
	conn := new(client)
	err := withSocketPath(path, func(path string) (err error) {
		conn.conn, err = net.Dial("unix", path)
		return err
	})
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s answers only the broker's own user: run this as it, or as root (%w)", path, err)
	case err != nil:
		return nil, fmt.Errorf("no broker answers on %s; it does not run any more? (%w)", path, err)
	}
	conn.in = bufio.NewReader(conn.conn)
	return conn, nil
}

// next asks for the profile. Its interval begins at the question before.
func (p *client) next() (*Profile, error) {
	got := new(Profile)
	return got, p.ask(question{}, got)
}

// ask sends a question and decodes the answer into got.
func (p *client) ask(q question, got any) error {
	p.conn.SetDeadline(time.Now().Add(10 * time.Second))
	question, err := json.Marshal(q)
	if err == nil {
		_, err = p.conn.Write(append(question, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = p.in.ReadBytes('\n')
	}
	if err != nil {
		if err == io.EOF || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			err = errors.New("it has stopped")
		}
		return fmt.Errorf("reading the broker's profile: %w", err)
	}
	if err := json.Unmarshal(line, got); err != nil {
		return fmt.Errorf("the broker's profile is not one this version reads: %w", err)
	}
	return nil
}

func (p *client) close() { p.conn.Close() }
