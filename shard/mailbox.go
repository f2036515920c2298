package shard

import (
	"sync/atomic"
	"unsafe"

	"github.com/tailbound/tailbound/mem"
)

// Mail is one message between two shards: plain data. Its block, if it has one, is
// memory of one of the two that is lent to the other until a later mail.
type Mail struct {
	Kind   uint8
	From   uint8
	Code   int16  // a Kafka error code
	Slot   uint32 // of the request that it belongs to
	Serial uint32 // of that request
	A, B   uint64
	Block  mem.Block
}

// Kinds of mail. Each that asks for an answer gets exactly one, and the shard that
// asks has a place for it.
const (
	MailNone        = iota
	MailRequest     // data -> control: in the block, lent, the client's address and a request; code: its listener
	MailReply       // control -> data: its reply, lent; no block: close the connection
	MailGiveBack    // either way: a block that was lent
	MailOpenBatch   // data -> control: look through the batch of b bytes in the block, lent (LentSearch); slot: a part
	MailBatchOpened // control -> data: code 1: a record was found, at offset b with time a; the block that was lent
	MailTopic       // control -> data: topic number b has a partitions; the topic is in the block
	MailForget      // control -> data: topic number b is deleted
	MailOpen        // control -> data: log a is partition b (number<<32 | index)
	MailOpened      // data -> control: log a; code
	MailDelete      // control -> data: delete log a
	MailDeleted     // data -> control: log a; code
	MailSettings    // control -> data: examine retention every a nanoseconds; the post may have other Settings
	MailNoRoom      // data -> control: the shard is short of room, as in Shortage; control -> data: another shard found the disk full
	MailRoom        // data -> control: it is not short of room any more; serial: what was refused since the mail before
	MailServe       // control -> data: all logs are named; listen
	MailServing     // data -> control: a logs belong to no topic and are set aside
	MailStopped     // data -> control: no request is in flight any more
	MailClose       // control -> data: write the mark of a clean stop

	// Questions of the control shard. Question and answer have the same serial.
	MailConfigure  // control -> data: topic number b has the configuration in the block
	MailConfigured // data -> control
	MailTruncate   // control -> data: log a is to start at offset b; -1: at its high watermark
	MailTruncated  // data -> control: it starts at offset a, which is durable; code
	MailSizes      // control -> data: how large are the logs from slot b on?
	MailSized      // data -> control: a logs are in the block; b: the next slot, 0: there is none
	MailProducers  // control -> data: which producers does log a remember?
	MailProduced   // data -> control: a producers are in the block, if any; code
	MailLosses     // control -> data: what have the partitions of topic number b lost?
	MailLost       // data -> control: a ranges are in the block
)

// OpenCredit is how many questions a data shard has room for: the control shard
// leaves no more unanswered.
const OpenCredit = 128

const mailBytes = int(unsafe.Sizeof(Mail{}))

// mailbox is a queue of mail from one shard to another. One thread puts, the other
// takes; both touch no other words than head and tail.
//
// Invariant: head <= tail <= head + cap.
type mailbox struct {
	head  atomic.Uint64 // written by take
	_     [56]byte
	tail  atomic.Uint64 // written by put
	_     [56]byte
	slots mem.Block // off-heap: cap entries
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

// Waker wakes a shard that sleeps in Ring.Wait. Any thread may call it.
type Waker interface{ Wake() }

// Post is the mail between the shards of a broker: two mailboxes for each data shard,
// from and to the control shard, and which shards sleep. All shards share it.
type Post struct {
	arena  *mem.Arena
	toData []mailbox // [i]: control -> data shard i (1..)
	toCtl  []mailbox // [i]: data shard i -> control
	asleep []atomic.Uint32
	wakers []Waker
	stop   atomic.Uint32
	reload atomic.Pointer[Settings] // not acted on yet
	latest atomic.Pointer[Settings] // the last that came; nil: none
}

// NewPost makes the mailboxes of one control shard and n data shards, with room for
// capacity mails each: at least twice as many as a shard may have requests in flight.
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

// PostBytes is how many bytes NewPost maps.
func PostBytes(n, capacity int) int { return 2*n*capacity*mailBytes + (n+1)*8192 }

// SetWaker sets how to wake a shard, before the shard's first turn.
func (p *Post) SetWaker(shard int, waker Waker) { p.wakers[shard] = waker }

// Waker is what SetWaker has set.
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

// Reload has the broker act on other settings, which nothing changes afterwards. Any
// thread may call it. Reloaded says when the control shard has acted on them; data shards
// do so soon after.
func (p *Post) Reload(settings *Settings) {
	p.latest.Store(settings)
	p.reload.Store(settings)
	p.wakers[0].Wake()
}

// Reloaded says that the control shard has acted on all settings that came by Reload.
// Any thread may call it.
func (p *Post) Reloaded() bool { return p.reload.Load() == nil }

func (p *Post) stopping() bool { return p.stop.Load() != 0 }

// sleep notes that a shard is about to sleep. False: there is mail already.
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

// wake wakes a shard that sleeps or is about to.
func (p *Post) wake(shard int) {
	if p.asleep[shard].Load() != 0 && p.wakers[shard] != nil {
		p.wakers[shard].Wake()
	}
}
