package shard

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/netring"
)

// written is a Logger that keeps what it is given.
type written struct{ all []string }

func (l *written) Log(level Level, shard int, text []byte) { l.all = append(l.all, string(text)) }

// What a client says of its software stands in the line about its connection,
// and is cut to the place that there is for it.
func TestClientSoftwareIsNamed(t *testing.T) {
	for _, c := range []struct{ name, version, want string }{
		{"librdkafka", "2.3.0", "7777 (client software: librdkafka 2.3.0)"},
		{strings.Repeat("n", 40), strings.Repeat("v", 20), "7777 (client software: " + strings.Repeat("n", 32) + " " + strings.Repeat("v", 14) + ")"},
		{"not a name", "2.3.0", "7777"},
		{"", "", "7777"},
	} {
		h, out := newHotShard(t, hotArenaBytes, 64), &written{}
		h.s.lines.out = out
		r := kmsg.NewPtrApiVersionsRequest()
		r.ClientSoftwareName, r.ClientSoftwareVersion = c.name, c.version
		h.ring.say(frameOf(r, 3, 1))
		h.turn()
		h.ring.say([]byte{0, 0, 0, 13, 7777 >> 8, 7777 & 0xff, 0, 0, 0, 0, 0, 1, 0, 3, 'h', 'o', 't'})
		for range 5 {
			h.turn()
		}
		if len(out.all) != 1 || !strings.HasSuffix(out.all[0], ": "+c.want) {
			t.Errorf("%s %s: %q", c.name, c.version, out.all)
		}
	}
}

// A connection knows nothing of the one that had its slot before.
func TestConnectionsBeginAnew(t *testing.T) {
	table := newConns(4)
	before, after := netring.ConnID(1<<32|3), netring.ConnID(2<<32|3)
	table.opened(before)
	conn := table.of(before)
	conn.software.nameBytes = 5
	conn.wait()
	conn.passed = 9
	conn.waited()
	if conn.passed != 0 {
		t.Error("a connection of which no request waits is kept from starting one")
	}
	table.closed(before)
	table.opened(after)
	if c := table.of(after); *c != (conn0(after)) {
		t.Errorf("%+v", *c)
	}
	defer func() {
		if recover() == nil {
			t.Error("a connection that is gone was found")
		}
	}()
	table.of(before)
}

func conn0(id netring.ConnID) conn { return conn{id: id} }
