package ioring

import (
	"math"

	"github.com/tailbound/tailbound/mem"
)

// Instant is a monotonic time in nanoseconds. Only differences have a meaning.
type Instant int64

// Never is later than every other Instant.
const Never Instant = math.MaxInt64

// Token names the operation that a Completion is of: kind (8 bits) | generation (24 bits) |
// slot (32 bits). The ring does not interpret it. The kind says which package and machine
// the completion is for, the slot which of them, and the generation whether the slot is
// still in use for the same thing.
type Token uint64

// Ranges of token kinds, one for each package, so that a completion can be routed by its
// kind.
const (
	KindShard  = 0x00 // 0x00-0x0f: shard
	KindNet    = 0x10 // 0x10-0x1f: netring
	KindEngine = 0x20 // 0x20-0x2f: engine
)

// MakeToken packs a token. generation is taken modulo 2^24.
func MakeToken(kind uint8, generation, slot uint32) Token {
	return Token(kind)<<56 | Token(generation&0xffffff)<<32 | Token(slot)
}

// Kind is the token's kind.
func (t Token) Kind() uint8 { return uint8(t >> 56) }

// Generation is the token's generation, 24 bits.
func (t Token) Generation() uint32 { return uint32(t>>32) & 0xffffff }

// Slot is the token's slot.
func (t Token) Slot() uint32 { return uint32(t) }

// Code is what an Op does. Paths are at the start of Buf, NUL-terminated, and relative to the
// data directory.
type Code uint8

const (
	// Nop completes with 0.
	Nop Code = iota
	// Read fills Buf from File at Offset. Result: bytes read, 0 at the end.
	Read
	// Write writes Buf to File at Offset. Result: bytes written. With FlagLink the
	// next op, a Sync, starts when this one has written all of Buf; if it is short
	// or fails, the Sync completes with ECANCELED.
	Write
	// Sync makes what was written to File durable: fdatasync, or fsync with FlagFull,
	// which directories need. Result 0.
	Sync
	// Allocate reserves [Offset, Offset+Arg) of File (fallocate mode 0; with
	// FlagKeepSize the file's size stays). Result 0.
	Allocate
	// Open opens a path into slot File. Arg holds Open* bits. Result 0.
	Open
	// Close closes slot File. Result 0.
	Close
	// Rename moves the first path in Buf to the second, which follows its NUL.
	Rename
	// Unlink removes a path.
	Unlink
	// Mkdir makes a directory; EEXIST is reported like any other errno.
	Mkdir
	// List lists the directory whose path is in Buf into Buf: names, each
	// NUL-terminated, in lexical order, starting with entry number Offset
	// ("." and ".." are left out). Result: number of names written; 0 at the
	// end. It may block, and is for opening and checking a directory only.
	List
	// Stat writes the size of File in bytes, and when it was last written in milliseconds
	// since 1970, each 8 bytes little endian, to Buf.
	Stat
	// Accept accepts connections on the listener in slot File until it fails: several
	// completions, FlagMore on all but the last. Result: the new socket's slot. With
	// a Buf, of AddressBytes, it accepts one connection, and writes its peer's address
	// there: see PeerAddress.
	Accept
	// Recv receives from socket File into provided buffers until it fails or
	// the peer closes: several completions, FlagMore on all but the last (a
	// ring without multishot gives one completion, without FlagMore: push it
	// again). Result: bytes, 0 at the end of the stream; with FlagBuffer,
	// BufferID is the buffer, which the caller then owns until it gives it back
	// with Provide. ENOBUFS: no buffer was free. With a Buf it receives into that,
	// at most its length, and completes once.
	Recv
	// Provide gives receive buffer number Arg, whose memory is Buf, to the ring. It
	// never fails and has no completion.
	Provide
	// Send sends the vector in Buf (see Vector) to socket File. Arg: number
	// of pieces, 1 to 1024. Result: bytes sent, possibly fewer than all.
	Send
	// Shutdown shuts both directions of socket File down.
	Shutdown
	// Cancel cancels every operation whose token is Token(Arg). Result: how
	// many were found, or ENOENT. Each cancelled operation has its own completion.
	Cancel
	// Timeout completes with ETIME at Instant(Offset).
	Timeout
	// Wake completes with 0 each time another thread calls the ring's Waker: it is
	// pushed once and has many completions.
	Wake
	// SeekData writes the offset of the first byte of File at Offset or behind it that may
	// have been written, 8 bytes little endian, to Buf; 2^63-1 if there is none. Where
	// the file system does not know, that is Offset. It may block, and is for opening
	// and checking a directory only.
	SeekData
)

// Op flags.
const (
	FlagLink     uint8 = 1 << iota // start the next pushed op after this one; on Write only
	FlagFull                       // Sync: fsync instead of fdatasync
	FlagKeepSize                   // Allocate: leave the size
)

// Open bits, in Op.Arg. Files are opened for direct reading and writing.
const (
	OpenCreate    = 1 << iota // create it where it is missing
	OpenExclusive             // with OpenCreate: EEXIST where it is there
	OpenDirectory             // a directory, for Sync
	OpenReadOnly
)

// Op is one operation: plain data, passed by value, so that nothing escapes.
type Op struct {
	Token  Token
	Offset uint64
	Arg    uint64
	Buf    mem.Block // arena memory, lent to the ring until the last completion is reaped
	File   uint32    // file or socket slot
	Code   Code
	Flags  uint8
}

// Completion flags.
const (
	FlagBuffer uint32 = 1 << 0 // a provided buffer was used: BufferID
	FlagMore   uint32 = 1 << 1 // more completions of the operation follow
)

// Completion is the result of an Op. Result is the kernel's: a count, or -errno.
type Completion struct {
	Token  Token
	Result int32
	Flags  uint32
}

// BufferID is the number of the provided buffer that a Recv used.
func (c Completion) BufferID() uint16 { return uint16(c.Flags >> 16) }

// Ring executes operations: the kernel's io_uring in production, a seeded simulation under
// test. It is the only way from the deterministic packages to the world.
//
// One thread owns a Ring. A Ring never calls back: a completion is data.
type Ring interface {
	// Push queues op. False: the queue is full, and the caller keeps Buf. Operations
	// start in the order in which they were pushed, at the latest in the next Wait;
	// they complete in any order, except that linked ones are in sequence.
	Push(op Op) bool
	// Room is how many ops can be pushed now. A linked pair needs two.
	Room() int
	// Reap moves up to len(out) completions to out, and returns how many. It never
	// blocks.
	Reap(out []Completion) int
	// Wait submits what is queued, then sleeps until there is a completion, a wake-up
	// or the time until. Only the thread's loop calls it. Wait(0) submits and polls,
	// without sleeping.
	Wait(until Instant)
}

// VectorHeaderBytes is the size of the ring's own part at the start of a Send's Buf, where it
// builds the message header. The pieces follow, 16 bytes each, laid out as the kernel's
// iovec; SetPiece fills them in.
const VectorHeaderBytes = 64

// VectorBytes is the size of a Send's Buf for n pieces.
func VectorBytes(n int) int { return VectorHeaderBytes + 16*n }
