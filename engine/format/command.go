package format

import (
	"errors"
	"fmt"
)

// CommandHeaderBytes is the length of the header of a command of the control
// log; the body follows it.
const CommandHeaderBytes = 16

// CommandVersion is the version that commands are written in. Version 1 is read
// too: it differs in the end of a snapshot alone (see PartCount).
const CommandVersion = 2

// Command is a command of the control log. What its body is, the kind says: see
// cluster.
//
//	0 version 1 | 1 kind 1 | 2 zero 2 | 4 body length 4 | 8 sequence 8 | 16 body
type Command struct {
	Version   uint8
	Kind      uint8
	BodyBytes uint32
	Sequence  uint64 // 1 for a directory's first, and so on; of a snapshot's parts, that of the state they hold
}

// Append writes the command and its body behind b. The version is CommandVersion.
func (c *Command) Append(b, body []byte) []byte {
	b = append(b, CommandVersion, c.Kind, 0, 0)
	b = le.AppendUint32(b, uint32(len(body)))
	b = le.AppendUint64(b, c.Sequence)
	return append(b, body...)
}

// Get parses a command that takes all of p and gives its body. Its error is a
// Newer where a later version wrote it.
func (c *Command) Get(p []byte) (body []byte, err error) {
	if len(p) < CommandHeaderBytes {
		return nil, fmt.Errorf("%d bytes", len(p))
	}
	c.Version, c.Kind, c.BodyBytes, c.Sequence = p[0], p[1], le.Uint32(p[4:]), le.Uint64(p[8:])
	switch {
	case c.Version > CommandVersion:
		return nil, Newer(fmt.Sprintf("commands of version %d", c.Version))
	case c.Version == 0:
		return nil, errors.New("version 0")
	case p[2] != 0 || p[3] != 0:
		return nil, errors.New("reserved bytes are in use")
	}
	body = p[CommandHeaderBytes:]
	if uint64(c.BodyBytes) != uint64(len(body)) {
		return nil, fmt.Errorf("a body of %d bytes says it has %d", len(body), c.BodyBytes)
	}
	return body, nil
}

// PartCountBytes is the length of a PartCount.
const PartCountBytes = 5

// PartCount says how many things of a kind a snapshot holds. The end of a
// snapshot is a list of them, in any order; a kind that is not in it has none.
// In version 1 it is four counts by position: topics, groups, brokers, groups
// with configurations.
//
//	0 kind 1 | 1 count 4
type PartCount struct {
	Kind  uint8 // of the commands that hold them
	Count uint32
}

// Append writes it behind b.
func (c PartCount) Append(b []byte) []byte { return le.AppendUint32(append(b, c.Kind), c.Count) }

// GetPartCounts parses the body of a snapshot's end that has this version; kinds
// are those that version 1 has by position.
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
