package kafka

import "strconv"

// Fault is why a request cannot be parsed. It is a value, so that making one does not
// allocate.
type Fault struct {
	What string
	At   int // position in the request, not counting its length field
}

// Error names what was wrong, and where.
func (f *Fault) Error() string { return f.What + " at byte " + strconv.Itoa(f.At) }

// ErrTooMany refuses a request that names more partitions than there is room for.
var ErrTooMany error = &Fault{What: "the request names too many partitions"}

// Span is a place in a request: offset and length in bytes.
type Span struct{ Off, Len int }

const scratchBytes = 1 << 16

// Reader reads the fields of a request that was received in several slices, called
// pieces. After the first fault all fields are zero. A Reader belongs to one shard and
// is reused for every request.
//
// Invariants: at is the position of pieces[i] in the request; 0 <= off <= len(pieces[i]).
type Reader struct {
	pieces  [][]byte
	piece   []byte // the current one; nil after a fault
	i       int    // its index
	off     int    // of the next byte in it
	at      int    // its position in the request
	total   int
	failed  bool
	fault   Fault
	scratch [scratchBytes]byte // fields that straddle two pieces are copied here; once full it is reused from its start
	used    int
}

// Reset begins to read a request.
func (r *Reader) Reset(pieces [][]byte) {
	r.pieces, r.piece, r.i, r.off, r.at, r.total, r.failed, r.used = pieces, nil, 0, 0, 0, 0, false, 0
	for _, p := range pieces {
		r.total += len(p)
	}
	if len(pieces) > 0 {
		r.piece = pieces[0]
	}
	r.settle()
}

// Mark is a position to which Back returns.
type Mark struct{ i, off, at int }

// Mark returns the Reader's position.
func (r *Reader) Mark() Mark { return Mark{r.i, r.off, r.at} }

// Back returns to a position in the same request. There was no fault since.
func (r *Reader) Back(m Mark) {
	r.i, r.off, r.at = m.i, m.off, m.at
	if len(r.pieces) > 0 {
		r.piece = r.pieces[m.i]
	}
}

// Offset returns the position of the next byte.
func (r *Reader) Offset() int { return r.at + r.off }

// Left returns how many bytes are left.
func (r *Reader) Left() int { return r.total - r.at - r.off }

// Err returns the first fault, or nil.
func (r *Reader) Err() error {
	if !r.failed {
		return nil
	}
	return &r.fault
}

func (r *Reader) fail(what string) {
	if !r.failed {
		r.failed, r.piece = true, nil
		r.fault = Fault{what, r.Offset()}
	}
}

// settle moves past pieces that are read to their end.
func (r *Reader) settle() {
	for r.i < len(r.pieces)-1 && r.off == len(r.pieces[r.i]) {
		r.at += len(r.pieces[r.i])
		r.i++
		r.piece, r.off = r.pieces[r.i], 0
	}
}

// near returns the next n bytes if they are in one piece with more bytes after them,
// which is nearly always so. Otherwise it returns nil, and the caller calls take.
func (r *Reader) near(n int) []byte {
	from, to := r.off, r.off+n
	if to >= len(r.piece) {
		return nil
	}
	r.off = to
	return r.piece[from:to]
}

// take returns the next n bytes: a view if they are in one piece, else a copy. nil: the
// request has fewer.
func (r *Reader) take(n int, what string) []byte {
	if r.failed {
		return nil
	}
	if n < 0 || n > r.Left() {
		r.fail(what)
		return nil
	}
	if n == 0 {
		return r.scratch[:0]
	}
	if r.off+n <= len(r.piece) {
		b := r.piece[r.off : r.off+n]
		r.off += n
		r.settle()
		return b
	}
	if n > scratchBytes-r.used {
		if n > scratchBytes {
			r.fail(what)
			return nil
		}
		r.used = 0
	}
	b := r.scratch[r.used : r.used+n]
	r.used += n
	for got := 0; got < n; {
		m := copy(b[got:], r.pieces[r.i][r.off:])
		got += m
		r.off += m
		r.settle()
	}
	return b
}

// skip skips n bytes.
func (r *Reader) skip(n int, what string) {
	if r.failed {
		return
	}
	if n < 0 || n > r.Left() {
		r.fail(what)
		return
	}
	for n > 0 {
		m := min(n, len(r.pieces[r.i])-r.off)
		r.off += m
		n -= m
		r.settle()
	}
}

// CopyTo copies the bytes of a Span to dst, which has the same length. It does not move
// the Reader.
func (r *Reader) CopyTo(s Span, dst []byte) {
	at, n := 0, 0
	for _, p := range r.pieces {
		if n == len(dst) {
			return
		}
		if from := s.Off + n - at; from < len(p) {
			n += copy(dst[n:], p[from:])
		}
		at += len(p)
	}
}

func (r *Reader) int8(what string) int8 {
	b := r.near(1)
	if b == nil {
		if b = r.take(1, what); b == nil {
			return 0
		}
	}
	return int8(b[0])
}

func (r *Reader) int16(what string) int16 {
	b := r.near(2)
	if b == nil {
		if b = r.take(2, what); b == nil {
			return 0
		}
	}
	return int16(b[0])<<8 | int16(b[1])
}

func (r *Reader) int32(what string) int32 {
	b := r.near(4)
	if b == nil {
		if b = r.take(4, what); b == nil {
			return 0
		}
	}
	return int32(b[0])<<24 | int32(b[1])<<16 | int32(b[2])<<8 | int32(b[3])
}

func (r *Reader) int64(what string) int64 {
	b := r.near(8)
	if b == nil {
		if b = r.take(8, what); b == nil {
			return 0
		}
	}
	return int64(b[0])<<56 | int64(b[1])<<48 | int64(b[2])<<40 | int64(b[3])<<32 | int64(b[4])<<24 | int64(b[5])<<16 | int64(b[6])<<8 | int64(b[7])
}

// uvarint reads an unsigned varint of at most 32 bits.
func (r *Reader) uvarint(what string) uint32 {
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b := r.near(1)
		if b == nil {
			if b = r.take(1, what); b == nil {
				return 0
			}
		}
		v |= uint32(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if shift == 28 && b[0] > 0x0f {
				break
			}
			return v
		}
	}
	r.fail(what)
	return 0
}

// length reads the length of a string, an array or bytes; -1 is null. short: the length
// of a string that is not flexible has 16 bits.
func (r *Reader) length(flexible, short bool, what string) int {
	switch {
	case flexible:
		return int(r.uvarint(what)) - 1
	case short:
		return int(r.int16(what))
	default:
		return int(r.int32(what))
	}
}

// text reads a string that must not be null.
func (r *Reader) text(flexible bool, what string) []byte {
	n := r.length(flexible, true, what)
	if n > 32767 {
		r.fail(what)
		return nil
	}
	return r.take(n, what)
}

// nullable reads a string that may be null, which it returns as nil.
func (r *Reader) nullable(flexible bool, what string) []byte {
	n := r.length(flexible, true, what)
	if n == -1 {
		return nil
	}
	if n > 32767 {
		r.fail(what)
		return nil
	}
	return r.take(n, what)
}

// count reads the length of an array whose elements have at least size bytes each; null
// counts as 0. A count that the rest of the request cannot hold is refused here, before
// a loop over it.
func (r *Reader) count(flexible bool, size int, what string) int {
	n := r.length(flexible, false, what)
	if n == -1 {
		return 0
	}
	if n < 0 || n*size > r.Left() {
		r.fail(what)
		return 0
	}
	return n
}

// tags skips tagged fields (KIP-482).
func (r *Reader) tags(flexible bool, what string) {
	if !flexible {
		return
	}
	n := int(r.uvarint(what))
	if n*2 > r.Left() {
		r.fail(what)
		return
	}
	for range n {
		r.uvarint(what)
		r.skip(int(r.uvarint(what)), what)
		if r.failed {
			return
		}
	}
}

// Request is a request's header.
type Request struct {
	Key, Version int16
	Correlation  int32
	ClientID     []byte // a view, valid until the Reader is used again; nil: null
	Flexible     bool
}

// ApiVersionsMax is the highest version of ApiVersions that is served.
const ApiVersionsMax = 5

// ParseHeader reads header version 1 or 2 into h (RequestHeader.json). Of an unknown key
// or version it reads only the fields that all header versions have.
func ParseHeader(r *Reader, h *Request) error {
	h.Key, h.Version, h.Correlation = r.int16("API key"), r.int16("API version"), r.int32("correlation id")
	h.ClientID, h.Flexible = nil, false
	if k, ok := KeyOf(h.Key); ok && h.Version <= k.Latest {
		h.Flexible = h.Version >= k.Flexible
	}
	if h.Key == KeyApiVersions && (h.Version < 0 || h.Version > ApiVersionsMax) {
		return r.Err() // the reply does not depend on the rest
	}
	// The client id is an old-style string in both versions.
	h.ClientID = r.nullable(false, "client id")
	r.tags(h.Flexible, "header's tagged fields")
	return r.Err()
}

// Software is the places in a request of its client's software name and version.
type Software struct{ Name, Version Span }

// ApiVersionsRequest is the body of an ApiVersions request.
type ApiVersionsRequest struct {
	Software Software // where the client names its software
	Valid    bool     // that name and version are valid
	Cluster  []byte   // the id of the cluster that the client means, a view as in Request; nil: it names none
	Node     int32    // the node that it means; -1: it names none
}

// ParseApiVersions reads the body of an ApiVersions request (ApiVersionsRequest.json):
// from version 3 on the client's software (KIP-511), in 5 the cluster and the node that
// the client means (KIP-1242).
func ParseApiVersions(r *Reader, version int16) (ApiVersionsRequest, error) {
	asked := ApiVersionsRequest{Valid: true, Node: -1}
	if version < 3 {
		return asked, nil
	}
	name := r.text(true, "client software name")
	asked.Software.Name, asked.Valid = Span{r.Offset() - len(name), len(name)}, softwareWord(name)
	number := r.text(true, "client software version")
	asked.Software.Version, asked.Valid = Span{r.Offset() - len(number), len(number)}, softwareWord(number) && asked.Valid
	if version >= 5 {
		asked.Cluster = r.nullable(true, "cluster id")
		asked.Node = r.int32("node id")
	}
	r.tags(true, "tagged fields")
	return asked, r.Err()
}

// softwareWord says whether a word consists of letters and digits, with dots and hyphens
// between them.
func softwareWord(b []byte) bool {
	for i, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case (c == '-' || c == '.') && i > 0 && i < len(b)-1:
		default:
			return false
		}
	}
	return len(b) > 0
}
