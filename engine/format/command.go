package format

import (
	"errors"
	"fmt"
)

// CommandHeaderBytes is the length of the header of a command of the control log, which
// its body follows.
const CommandHeaderBytes = 16

// CommandVersion is the version of commands that are written. Version 1 is read too: it
// differs only in the end of a snapshot (see PartCount).
const CommandVersion = 2

// Command is a command of the control log. Its kind determines its body: see package
// cluster.
//
//	0 version 1 | 1 kind 1 | 2 zero 2 | 4 body length 4 | 8 sequence 8 | 16 body
type Command struct {
	Version   uint8
	Kind      uint8
	BodyBytes uint32
	Sequence  uint64 // from 1 in a directory; in a snapshot's parts, that of the state they hold
}

// Append appends the command, with CommandVersion, and its body to dst.
func (c *Command) Append(dst, body []byte) []byte {
	dst = append(dst, CommandVersion, c.Kind, 0, 0)
	dst = le.AppendUint32(dst, uint32(len(body)))
	dst = le.AppendUint64(dst, c.Sequence)
	return append(dst, body...)
}

// Get parses a command that takes all of buf, and returns its body. The error is a Newer
// if a later version wrote it.
func (c *Command) Get(buf []byte) (body []byte, err error) {
	if len(buf) < CommandHeaderBytes {
		return nil, fmt.Errorf("%d bytes", len(buf))
	}
	c.Version, c.Kind, c.BodyBytes, c.Sequence = buf[0], buf[1], le.Uint32(buf[4:]), le.Uint64(buf[8:])
	switch {
	case c.Version > CommandVersion:
		return nil, Newer(fmt.Sprintf("commands of version %d", c.Version))
	case c.Version == 0:
		return nil, errors.New("version 0")
	case buf[2] != 0 || buf[3] != 0:
		return nil, errors.New("reserved bytes are in use")
	}
	body = buf[CommandHeaderBytes:]
	if uint64(c.BodyBytes) != uint64(len(body)) {
		return nil, fmt.Errorf("a body of %d bytes says it has %d", len(body), c.BodyBytes)
	}
	return body, nil
}

// PartCountBytes is the length of a PartCount.
const PartCountBytes = 5

// PartCount is how many commands of a kind a snapshot has. The end of a snapshot is a list
// of them, in any order; a kind that is not in it has none. In version 1 it is four
// counts by position: topics, groups, brokers, groups with configurations.
//
//	0 kind 1 | 1 count 4
type PartCount struct {
	Kind  uint8 // of the commands that hold them
	Count uint32
}

// Append appends the count to dst.
func (c PartCount) Append(dst []byte) []byte { return le.AppendUint32(append(dst, c.Kind), c.Count) }

// GetPartCounts parses the body of a snapshot's end of a version. kinds are the kinds of
// the four counts of version 1.
func GetPartCounts(version uint8, body []byte, kinds [4]uint8) ([]PartCount, error) {
	var counts []PartCount
	if version == 1 {
		if len(body) != 16 {
			return nil, fmt.Errorf("a snapshot's end of %d bytes", len(body))
		}
		for i, kind := range kinds {
			counts = append(counts, PartCount{kind, le.Uint32(body[4*i:])})
		}
		return counts, nil
	}
	if len(body)%PartCountBytes != 0 {
		return nil, fmt.Errorf("a snapshot's end of %d bytes", len(body))
	}
	for ; len(body) > 0; body = body[PartCountBytes:] {
		counts = append(counts, PartCount{body[0], le.Uint32(body[1:])})
	}
	return counts, nil
}
