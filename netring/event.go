package netring

import "github.com/tailbound/tailbound/ioring"

// ConnID names a connection: slot | generation << 32. Every method ignores an id
// whose connection is gone. No connection has id 0.
type ConnID uint64

// Slot is the connection's index in a table of ConnsMax. It is reused when the
// connection is gone.
func (c ConnID) Slot() int { return int(uint32(c)) }

// RequestID names a request in the same way.
type RequestID uint64

// Kind is what happened.
type Kind uint8

const (
	Opened        Kind = iota // Conn was accepted
	RequestReady              // Request is one whole request of Conn
	Sent                      // the reply that Send was given with User has left or never will; its attached memory is the caller's again
	Closed                    // Conn is gone, and its id with it; after the last Sent of it
	ProtocolError             // Conn sent what cannot be a request, see What; it is being closed
)

// Event is something that happened. At is when the bytes or the completion that
// caused it came.
type Event struct {
	Kind    Kind
	First   [8]byte // ProtocolError: the request's length word and what followed, as far as it had come
	Conn    ConnID
	Request RequestID
	User    uint64
	At      ioring.Instant
}

// What says what the connection of a ProtocolError event probably spoke.
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
	switch length := lengthOf(e.First); {
	case length < 0:
		return "a request of negative length"
	case length < headerBytesMin:
		return "a request shorter than its header"
	}
	return "a request longer than socket.request.max.bytes"
}

// isTLS: a handshake record (0x16) of version 3.0 to 3.4 (RFC 8446, 5.1).
func isTLS(first [8]byte) bool { return first[0] == 0x16 && first[1] == 3 && first[2] <= 4 }

func lengthOf(first [8]byte) int32 {
	return int32(uint32(first[0])<<24 | uint32(first[1])<<16 | uint32(first[2])<<8 | uint32(first[3]))
}

// events is the queue of events for the caller, which empties it every turn.
//
// Invariant: it never overflows. There is room for what one turn can emit: an
// Opened, a ProtocolError and a Closed of every connection, and a RequestReady
// and a Sent of every request.
type events struct {
	all   []Event
	head  int
	count int
}

// emit queues an event, and returns it where it lies in the queue: the caller
// fills in the fields that only events of its kind have.
func (n *Net) emit(kind Kind, conn ConnID, request RequestID) *Event {
	queue := &n.events
	if queue.count == len(queue.all) {
		panic("netring: the events are not taken")
	}
	at := queue.head + queue.count
	if at >= len(queue.all) {
		at -= len(queue.all)
	}
	queue.count++
	event := &queue.all[at]
	event.Kind, event.First, event.Conn, event.Request, event.User, event.At = kind, [8]byte{}, conn, request, 0, n.now
	return event
}

// Next takes the next event. A request whose connection has gone since it came
// is left out.
func (n *Net) Next() (Event, bool) {
	queue := &n.events
	for queue.count > 0 {
		event := queue.all[queue.head]
		if queue.head++; queue.head == len(queue.all) {
			queue.head = 0
		}
		queue.count--
		if event.Kind == RequestReady && !n.Alive(event.Request) {
			continue
		}
		return event, true
	}
	return Event{}, false
}
