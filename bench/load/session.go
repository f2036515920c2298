package load

// Kafka's errors of sessions that the broker has not, or not at this epoch.
const (
	fetchSessionIDNotFound   = 70
	invalidFetchSessionEpoch = 71
)

// A session is an incremental fetch session (KIP-227), as most consumers have: requests
// name only partitions whose fetch position changed. Epochs are as in the request: 0
// asks for a session, -1 fetches without one.
type session struct {
	id, epoch int32
	all       []int32 // slots of a tail's partitions
	changed   []int32 // those whose offset has moved since the last request
}

func newSession(partitions int) session {
	s := session{}
	for slot := range partitions {
		s.all = append(s.all, int32(slot))
	}
	return s
}

// names are the slots that the next request names.
func (s *session) names() []int32 {
	if s.epoch > 0 {
		return s.changed
	}
	return s.all
}

// begin forgets the session; the next request asks for a new one.
func (s *session) begin() { s.id, s.epoch, s.changed = 0, 0, s.changed[:0] }

// answered takes an answer's session and error. It says whether that was about
// the session: the broker has let it go, and the next request begins another.
func (s *session) answered(id int32, code int16) (gone bool) {
	switch {
	case code == fetchSessionIDNotFound || code == invalidFetchSessionEpoch:
		s.begin()
		return true
	case s.epoch < 0:
	case s.epoch == 0 && id == 0:
		s.epoch = -1 // the broker gives none
	case s.epoch == 0:
		s.id, s.epoch = id, 1
	default:
		s.epoch = max(1, s.epoch+1) // 1 comes behind the greatest
	}
	return false
}
