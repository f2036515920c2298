package netring

import "github.com/tailbound/tailbound/ioring"

// timeouts looks at all connections now and then, for those that have made no
// progress: every timeout comes late by up to the time between two looks.
type timeouts struct {
	scanAt ioring.Instant
	scanNS int64
}

const (
	// pressurePart divides the progress timeout while requests wait for memory.
	pressurePart = 20
	// expeditedPart divides the send timeout while requests wait for what replies
	// hold, and a peer has to take sendProgressBytesMin or a whole reply within it.
	expeditedPart        = 60
	sendProgressBytesMin = 64 << 10
)

// checkTimeouts ends the connections that have made no progress, if it is time to
// look.
func (n *Net) checkTimeouts() {
	t := &n.timeouts
	if n.admission.underPressure() {
		t.scanAt = min(t.scanAt, n.now+ioring.Instant(n.o.ProgressTimeoutNS/pressurePart/4))
	}
	if n.replies.expedited {
		t.scanAt = min(t.scanAt, n.now+ioring.Instant(n.o.SendTimeoutNS/expeditedPart/4))
	}
	if n.now < t.scanAt {
		return
	}
	t.scanAt = n.now + ioring.Instant(t.scanNS)
	if n.admission.backpressure && int64(n.now-n.admission.backpressureSince) > n.o.ProgressTimeoutNS/8 {
		n.evict(true)
	}
	progressNS, sendNS := n.o.ProgressTimeoutNS, n.o.SendTimeoutNS
	if n.admission.underPressure() {
		progressNS /= pressurePart
	}
	if n.replies.expedited {
		sendNS /= expeditedPart
	}
	for i := range n.conns.all {
		conn := &n.conns.all[i]
		if conn.stage == stageOpen && n.timedOut(conn, progressNS, sendNS) {
			n.conns.terminate(conn)
		}
	}
}

// timedOut says whether the connection has made no progress for too long, and
// counts why.
func (n *Net) timedOut(conn *conn, progressNS, sendNS int64) bool {
	begun := conn.lengthHave > 0 || conn.partial != none // a request is coming
	switch {
	case conn.replyPending && int64(n.now-conn.sendProgressAt) > sendNS:
		n.stats.SendTimeouts++
	case conn.receiveEnded && int64(n.now-max(conn.activeAt, conn.sendAt)) > n.o.SendTimeoutNS:
	case conn.receiving && begun && conn.waitClass == noClass && int64(n.now-conn.progressAt) > progressNS:
		n.stats.ProgressTimeouts++
	case conn.outstanding == 0 && !begun && conn.unparsed.empty() && int64(n.now-conn.activeAt) > n.o.IdleTimeoutNS:
		n.stats.IdleCloses++
	default:
		return false
	}
	return true
}
