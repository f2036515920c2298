package shard

import (
	"sync/atomic"
	"unsafe"

	"github.com/tailbound/tailbound/mem"
)

// Mail is one message between two shards: plain data. The block, where there
// is one, is lent: its owner's memory, given back by a later mail.
type Mail struct {
	Kind   uint8
	From   uint8
	Code   int16  // a Kafka error code
	Slot   uint32 // the request it belongs to, in its owner's table
	Serial uint32 // which use of that slot
	A, B   uint64
	Block  mem.Block
}

// Kinds of mail. Every one that asks is answered by exactly one other, for
// which the asker holds the place.
const (
	MailNone        = iota
	MailRequest     // data -> control: a cold request, lent, behind the address of the client; code: by which listener
	MailReply       // control -> data: its answer, lent (no block: close the connection)
	MailGiveBack    // either way: a lent block comes home
	MailOpenBatch   // data -> control: the batch in the block, lent, of b bytes: its first record since time a; slot: a part
	MailBatchOpened // control -> data: offset b, time a; the block comes home
	MailTopic       // control -> data: topic number b has a partitions; id and name in the block
	MailForget      // control -> data: topic number b is gone
	MailOpen        // control -> data: log a is partition b (number<<32 | index)
	MailOpened      // data -> control: log a; code
	MailDelete      // control -> data: delete log a
	MailDeleted     // data -> control: log a; code
	MailSettings    // control -> data: look at retention every a nanoseconds
	MailNoRoom      // data -> control: the disk is full here; control -> data: it is, for others
	MailServe       // control -> data: every log is named; listen
	MailServing     // data -> control: a: logs without a name, set aside
	MailStopped     // data -> control: no request is in flight here any more
	MailClose       // control -> data: write the clean end

	// Questions: serial is the question's number, and the answer's.
	MailConfigure  // control -> data: topic number b has the configurations in the block
	MailConfigured // data -> control
	MailTruncate   // control -> data: log a is to start at offset b; -1: at its high watermark
	MailTruncated  // data -> control: a: where it starts now, durably; code
	MailSizes      // control -> data: how large are your logs, from slot b of your table on?
	MailSized      // data -> control: a logs in the block; b: the slot to go on with, 0: that was all
	MailProducers  // control -> data: which producers does log a know?
	MailProduced   // data -> control: a producers in the block, if any; code
)

// OpenCredit is how much mail that a data shard has to answer the control shard
// may have on its way: a data shard has a place for each.
const OpenCredit = 128

const mailBytes = int(unsafe.Sizeof(Mail{}))

// mailbox carries mail from one shard to one other. One thread puts, one
// takes; head and tail are the only words both touch.
//
// Invariant: head <= tail <= head + capacity.
type mailbox struct {
	head  atomic.Uint64 // the taker's
	_     [56]byte
	tail  atomic.Uint64 // the putter's
	_     [56]byte
	slots mem.Block // off-heap: capacity mails
	cap   uint64
}

func (m *mailbox) put(mail Mail) bool {
	t := m.tail.Load()
	if t-m.head.Load() == m.cap {
		return false
	}
	*m.at(t) = mail
	m.tail.Store(t + 1)
	return true
}

func (m *mailbox) take() (Mail, bool) {
	h := m.head.Load()
	if h == m.tail.Load() {
		return Mail{}, false
	}
	mail := *m.at(h)
	m.head.Store(h + 1)
	return mail, true
}

func (m *mailbox) empty() bool { return m.head.Load() == m.tail.Load() }

func (m *mailbox) at(i uint64) *Mail {
	return (*Mail)(m.slots.Slice(int(i%m.cap)*mailBytes, mailBytes).Pointer())
}

// Waker wakes a shard that sleeps in its ring. Any thread may call it.
type Waker interface{ Wake() }

// Post is the mail between all shards of a broker: a mailbox for each ordered
// pair of the control shard and a data shard, and which shards sleep.
type Post struct {
	arena  *mem.Arena
	toData []mailbox // [i]: control -> data shard i (1..)
	toCtl  []mailbox // [i]: data shard i -> control
	asleep []atomic.Uint32
	wakers []Waker
	stop   atomic.Uint32
}

// NewPost makes the mailboxes of one control shard and n data shards. Each
// holds capacity mails: at least twice the requests a shard has in flight.
func NewPost(n, capacity int) (*Post, error) {
	arena, err := mem.Map(PostBytes(n, capacity), mem.Options{})
	if err != nil {
		return nil, err
	}
	post := &Post{arena: arena, toData: make([]mailbox, n+1), toCtl: make([]mailbox, n+1), asleep: make([]atomic.Uint32, n+1), wakers: make([]Waker, n+1)}
	for i := 1; i <= n; i++ {
		for _, m := range []*mailbox{&post.toData[i], &post.toCtl[i]} {
			if m.slots, err = arena.Allocate("mailbox", capacity*mailBytes, 64); err != nil {
				return nil, err
			}
			m.cap = uint64(capacity)
		}
	}
	arena.Seal()
	return post, nil
}

// PostBytes is what NewPost maps.
func PostBytes(n, capacity int) int { return 2*n*capacity*mailBytes + (n+1)*8192 }

// SetWaker says how to wake a shard. Before it runs.
func (p *Post) SetWaker(shard int, waker Waker) { p.wakers[shard] = waker }

// Waker wakes a shard. After SetWaker.
func (p *Post) Waker(shard int) Waker { return p.wakers[shard] }

// Stop asks every shard to stop cleanly. Any thread may call it.
func (p *Post) Stop() {
	p.stop.Store(1)
	for _, waker := range p.wakers {
		if waker != nil {
			waker.Wake()
		}
	}
}

func (p *Post) stopping() bool { return p.stop.Load() != 0 }

// sleep says that a shard is about to sleep. False: mail is there already.
func (p *Post) sleep(shard int) bool {
	p.asleep[shard].Store(1)
	if shard != 0 {
		return p.toData[shard].empty()
	}
	for i := 1; i < len(p.toCtl); i++ {
		if !p.toCtl[i].empty() {
			return false
		}
	}
	return true
}

func (p *Post) awake(shard int) { p.asleep[shard].Store(0) }

// wake wakes a shard if it sleeps or is about to.
func (p *Post) wake(shard int) {
	if p.asleep[shard].Load() != 0 && p.wakers[shard] != nil {
		p.wakers[shard].Wake()
	}
}
