package netring

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Listening is this function, for each listening socket:
//
//	for !stopping {
//		socket := await accept()
//		if full || stopping { await close(socket) } else { opened(socket) }
//	}
//	await cancel(accept)
//
// It accepts one connection at a time, with its address. (An Accept with many
// completions has no place to put their addresses, and asking the kernel for them
// later would take two system calls and a descriptor for each connection, on
// kernels that can do it at all, 6.8 and later. The price is that of many clients
// that connect at once each takes a turn of its own.)
type listeners struct {
	all       []listener
	listening bool
	acceptAt  ioring.Instant // no Accept before: the last one failed for lack of a resource

	rejected []uint32 // file slots of accepted sockets that are over a limit
	closing  int      // Closes of such sockets in flight
	refusal  Refusal  // the last
}

// listener is one listening socket and the operations on it.
type listener struct {
	accepting bool      // an Accept is in flight
	peer      mem.Block // where the Accept writes the peer's address
	cancel    opStage   // of the Accept, once
}

// Refusal is a connection that was closed as soon as it was accepted: its peer,
// and the limit that it would have exceeded.
type Refusal struct {
	Address    ioring.Address
	PerAddress bool // the limit is ConnsPerAddressMax, else ConnsMax
	Limit      int
}

const acceptBackoffNS = 10e6

// Listen begins accepting.
func (n *Net) Listen() { n.listeners.listening = true }

// Refusals says how many connections were closed because a limit was reached,
// and which was the last.
func (n *Net) Refusals() (count uint64, last Refusal) {
	return n.stats.Refused + n.stats.RefusedPerAddress, n.listeners.refusal
}

// LimitAddresses changes how many connections one address may have, as in Options:
// most, and exceptions from it. Connections that are open stay open.
func (n *Net) LimitAddresses(most int, exceptions []AddressLimit) {
	if most == 0 {
		most = n.options.ConnsMax
	}
	n.options.ConnsPerAddressMax, n.options.AddressLimits = most, exceptions
}

// step keeps an Accept in flight on each listening socket, cancels it once Net
// stops, and closes rejected sockets. first is the file slot of the first
// listening socket. False: the ring is full.
func (l *listeners) step(ring ioring.Ring, first uint32, stopping bool, now ioring.Instant) bool {
	for len(l.rejected) > 0 {
		last := len(l.rejected) - 1
		if !ring.Push(ioring.Op{Token: ioring.MakeToken(kindReject, 0, 0), Code: ioring.Close, File: l.rejected[last]}) {
			return false
		}
		l.rejected = l.rejected[:last]
		l.closing++
	}
	for i := range l.all {
		listener, token := &l.all[i], ioring.MakeToken(kindAccept, 0, uint32(i))
		switch {
		case stopping:
			if listener.accepting && listener.cancel == opNone {
				if !ring.Push(ioring.Op{Token: ioring.MakeToken(kindCancel, 0, acceptSlot-uint32(i)), Code: ioring.Cancel, Arg: uint64(token)}) {
					return false
				}
				listener.cancel = opAsked
			}
		case l.listening && !listener.accepting && now >= l.acceptAt:
			listener.accepting = ring.Push(ioring.Op{Token: token, Code: ioring.Accept, File: first + uint32(i), Buf: listener.peer})
			if !listener.accepting {
				return false
			}
		}
	}
	return true
}

// sleepUntil is when step has something to do that no completion announces.
func (l *listeners) sleepUntil() ioring.Instant {
	for i := range l.all {
		if l.listening && !l.all[i].accepting {
			return l.acceptAt
		}
	}
	return ioring.Never
}

// idle says that no operation is in flight, nor due.
func (l *listeners) idle() bool {
	for i := range l.all {
		if l.all[i].accepting || l.all[i].cancel == opAsked {
			return false
		}
	}
	return len(l.rejected) == 0 && l.closing == 0
}

// accepted takes the completion of an Accept: a new connection or an error.
func (n *Net) accepted(completion ioring.Completion, at int) {
	listener := &n.listeners.all[at]
	if completion.Flags&ioring.FlagMore == 0 {
		listener.accepting = false
	}
	if completion.Result < 0 {
		switch ioring.Judge(ioring.Accept, completion.Result) {
		case ioring.Cancelled, ioring.Again, ioring.Gone:
		default: // EMFILE, ENFILE, ENOMEM …: another Accept at once would fail too
			n.listeners.acceptAt = n.now + acceptBackoffNS
			n.stats.AcceptBackoffs++
		}
		return
	}
	peer := ioring.PeerAddress(listener.peer)
	if n.stopping || n.refuses(peer) {
		n.listeners.rejected = append(n.listeners.rejected, uint32(completion.Result))
		return
	}
	conn := n.conns.take(peer, uint8(at), uint32(completion.Result), n.now)
	n.stats.Accepted++
	n.emit(Opened, conn.id(), 0)
	n.conns.schedule(conn)
}

// refuses says whether a limit of connections, of all or of this peer's address,
// is reached, and counts the refusal.
func (n *Net) refuses(peer ioring.Address) bool {
	limit := n.options.ConnsPerAddressMax
	for i := range n.options.AddressLimits {
		if exception := &n.options.AddressLimits[i]; exception.Address == peer {
			limit = exception.ConnsMax
		}
	}
	switch {
	case n.conns.free == none:
		n.stats.Refused++
		n.listeners.refusal = Refusal{peer, false, n.options.ConnsMax}
	case n.conns.open >= limit && n.conns.countOf(peer) >= limit:
		n.stats.RefusedPerAddress++
		n.listeners.refusal = Refusal{peer, true, max(limit, 0)}
	default:
		return false
	}
	return true
}
