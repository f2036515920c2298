package netring

import "github.com/tailbound/tailbound/ioring"

// ConnID names a connection: slot | generation << 32. An id whose connection
// is gone is ignored wherever it is given. 0 is never one.
type ConnID uint64

// Slot is the connection's place in a table of ConnsMax. Another connection has
// it when this one is gone.
func (c ConnID) Slot() int { return int(uint32(c)) }

// RequestID names a request, likewise.
type RequestID uint64

// Kind is what happened.
type Kind uint8

const (
	Opened        Kind = iota // Conn was accepted
	RequestReady              // Request is one whole request of Conn
	Sent                      // the reply that was sent with User left, or never will; what was attached is free
	Closed                    // Conn is gone, and its id with it; after the last Sent of it
	ProtocolError             // Conn sends what cannot be a request, see What; it is being closed
)

// Event is something that happened. At is when the bytes or the completion
// behind it came.
type Event struct {
	Kind    Kind
	First   [8]byte // ProtocolError: the request's length word and what followed, as far as it had come
	Conn    ConnID
	Request RequestID
	User    uint64
	At      ioring.Instant
}

// What names what a ProtocolError event's connection probably spoke.
func (e Event) What() string {
	if e.Kind != ProtocolError {
		return ""
	}
	switch string(e.First[:4]) {
	case "GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "CONN", "TRAC", "PRI ", "HTTP":
		return "HTTP spoken to a Kafka port"
	case "SSH-":
		return "SSH spoken to a Kafka port"
	}
	if isTLS(e.First) {
		return "TLS spoken to a port without it"
	}
	switch n := lengthOf(e.First); {
	case n < 0:
		return "a request of negative length"
	case n < headerBytesMin:
		return "a request shorter than its header"
	}
	return "a request longer than socket.request.max.bytes"
}

// isTLS: a handshake record (0x16) of version 3.0 to 3.4 (RFC 8446, 5.1).
func isTLS(first [8]byte) bool { return first[0] == 0x16 && first[1] == 3 && first[2] <= 4 }

func lengthOf(first [8]byte) int32 {
	return int32(uint32(first[0])<<24 | uint32(first[1])<<16 | uint32(first[2])<<8 | uint32(first[3]))
}

// events is the queue to the caller, who empties it every turn.
type events struct {
	all     []Event
	head, n int
}

// tell queues an event. It is written where it stays, not put together first.
func (n *Net) tell(k Kind, c ConnID, f RequestID, user uint64) *Event {
	q := &n.events
	if q.n == len(q.all) {
		panic("netring: the events are not taken")
	}
	at := q.head + q.n
	if at >= len(q.all) {
		at -= len(q.all)
	}
	q.n++
	e := &q.all[at]
	e.Kind, e.First, e.Conn, e.Request, e.User, e.At = k, [8]byte{}, c, f, user, n.now
	return e
}

// Next takes the next event. A request whose connection died meanwhile is left
// out.
func (n *Net) Next() (Event, bool) {
	q := &n.events
	for q.n > 0 {
		e := q.all[q.head]
		if q.head++; q.head == len(q.all) {
			q.head = 0
		}
		q.n--
		if e.Kind == RequestReady && !n.Alive(e.Request) {
			continue
		}
		return e, true
	}
	return Event{}, false
}
