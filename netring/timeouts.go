package netring

import "github.com/tailbound/tailbound/ioring"

// timeouts scans all connections periodically for those that have made no
// progress, so a timeout is late by up to the time between two scans.
type timeouts struct {
	scanAt ioring.Instant
	scanNS int64
}

const (
	// pressurePart divides the progress timeout while requests wait for memory.
	pressurePart = 20
	// expeditedPart divides the send timeout while requests wait for memory that
	// replies hold. Within it a peer has to take sendProgressBytesMin or a whole
	// reply.
	expeditedPart        = 60
	sendProgressBytesMin = 64 << 10
)

// checkTimeouts ends the connections that have made no progress, if a scan is due.
func (n *Net) checkTimeouts() {
	timeouts := &n.timeouts
	if n.admission.underPressure() {
		timeouts.scanAt = min(timeouts.scanAt, n.now+ioring.Instant(n.options.ProgressTimeoutNS/pressurePart/4))
	}
	if n.replies.expedited {
		timeouts.scanAt = min(timeouts.scanAt, n.now+ioring.Instant(n.options.SendTimeoutNS/expeditedPart/4))
	}
	if n.now < timeouts.scanAt {
		return
	}
	timeouts.scanAt = n.now + ioring.Instant(timeouts.scanNS)
	if n.stopping {
		timeouts.scanAt = n.now + ioring.Instant(min(timeouts.scanNS, n.options.StopTimeoutNS/4))
	}
	if n.admission.backpressure && int64(n.now-n.admission.backpressureSince) > n.options.ProgressTimeoutNS/8 {
		n.evict(true)
	}
	progressNS, sendNS := n.options.ProgressTimeoutNS, n.options.SendTimeoutNS
	if n.admission.underPressure() {
		progressNS /= pressurePart
	}
	if n.replies.expedited {
		sendNS /= expeditedPart
	}
	if n.stopping {
		sendNS = min(sendNS, n.options.StopTimeoutNS)
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
		if n.stopping {
			n.stats.StopTimeouts++
		} else {
			n.stats.SendTimeouts++
		}
	case conn.receiveEnded && int64(n.now-max(conn.activeAt, conn.sendAt)) > n.options.SendTimeoutNS:
	case conn.receiving && begun && conn.waitClass == noClass && int64(n.now-conn.progressAt) > progressNS:
		n.stats.ProgressTimeouts++
	case conn.outstanding == 0 && !begun && conn.unparsed.empty() && int64(n.now-conn.activeAt) > n.options.IdleTimeoutNS:
		n.stats.IdleCloses++
	default:
		return false
	}
	return true
}
