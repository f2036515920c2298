package lives

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/sim"
)

// engineWork runs one seed of a broker's storage without network: several lives of one data
// directory, each opened, used at random and ended by a clean stop, a power cut or kill -9.
// Each is compared with a record of everything that was acknowledged or read.
func engineWork(r Run) (res Result) {
	s := newEngineSim(r)
	defer s.finish(&res)
	lives := 2 + s.rng.IntN(4)
	if s.many {
		lives = format.EpochsMax + 1 + s.also.IntN(8)
	}
	for range lives {
		if err := s.life(); err != nil {
			res.Err = fmt.Errorf("life %d: %w", s.lives, err)
			return res
		}
	}
	return res
}

// finish ends a seed, whose workload defers it: a panic is its failure.
func (s *engineSim) finish(res *Result) {
	if p := recover(); p != nil {
		res.Err = explain(p)
	}
	s.freeArenas()
	res.Hash, res.Lives, res.Appends, res.Reads, res.Steps = s.w.Hash(), s.lives, s.appends, s.reads, s.w.Steps()
	if res.Err != nil {
		s.w.Logf("FAILED: %v", res.Err)
	}
}

// engineSim is the world of one seed.
type engineSim struct {
	run   Run
	w     *sim.World
	rng   *rand.Rand
	disk  *sim.Disk
	books []*book // by id, in order of creation; index + 1 is the log id
	lives int

	o         engine.Options
	also      *rand.Rand // a second source of chance: drawing from it leaves what rng draws
	warms     *rand.Rand // a third, of when memory becomes resident
	changing  bool       // each life has settings of its own
	many      bool       // many short lives
	large     bool       // some batches are larger than a run of many small ones
	epoch     int32      // of this life
	shards    int        // data shards of this life
	shardsMax int
	reshard   bool
	clean     bool // the life before was stopped cleanly
	mood      sim.RingOptions
	appends   int
	reads     int
	serial    uint64
	clockMS   int64
	sizes     []int // from which sizes of batches are drawn
	flood     bool  // appends are faster than the disk
	scratch   []byte
	broken    bool // a storage failure was injected in this life
	damaged   bool // workload rot has damaged files: a start has more to read
	full      bool // the disk has a limit

	nodes  []*node
	arenas []*mem.Arena
}

// node is one shard of the broker under test.
type node struct {
	s      *engineSim
	shard  int
	ring   *sim.Ring
	eng    *engine.Engine
	asks   []ask
	slots  map[engine.Slot]*book // lookups only
	logs   []engine.Slot         // open ones, in order
	holds  []hold
	failed bool
	sleep  ioring.Instant

	cold      *mem.Arena // memory that becomes resident late; nil: it is resident
	warmEvery int        // once in so many turns all that was asked for becomes resident
}

// ask is a request that an Event answers.
type ask struct {
	kind  askKind
	book  *book
	slot  engine.Slot
	from  int64
	start int64
}

type askKind uint8

const (
	askNone askKind = iota
	askOpen
	askDelete
	askRead
	askTruncate
)

// hold is a read whose memory is kept for a while, and must not change meanwhile.
type hold struct {
	views []engine.View
	book  *book
	from  int64
	read  uint32 // of a read from disk
	cold  bool
	turns int
}

func newEngineSim(r Run) *engineSim {
	s := &engineSim{run: r, w: sim.NewWorld(r.Seed), clockMS: 1_700_000_000_000, scratch: make([]byte, 1<<20)}
	s.rng, s.also = s.w.Rand, rand.New(rand.NewPCG(r.Seed*0x9e3779b97f4a7c15, 0x616c736f))
	s.warms = rand.New(rand.NewPCG(r.Seed*0x9e3779b97f4a7c15, 0x7761726d))
	s.changing, s.many, s.large = s.also.IntN(3) == 0, s.also.IntN(32) == 0, s.also.IntN(4) == 0
	s.w.Trace = r.Trace
	s.disk = sim.NewDisk(0)
	s.shardsMax = s.pick(1, 1, 2, 3)
	s.reshard = s.rng.IntN(3) == 0
	s.shards = 1 + s.rng.IntN(s.shardsMax)
	s.drawOptions()
	s.mood = sim.RingOptions{Files: int(s.o.Files) + s.o.FilesMax + 16, Depth: 512,
		ShortWrites: s.pick(0, 0, 30), ShortReads: s.pick(0, 0, 30), Again: s.pick(0, 0, 40), Late: s.pick(0, 0, 10)}
	switch s.rng.IntN(3) {
	case 0:
		s.sizes = []int{headBytes, 100, 300, 1000}
	case 1:
		s.sizes = []int{headBytes, 500, 4096, 8000, 20_000}
	case 2:
		s.sizes = []int{100, 1000, 70_000, 200_000}
	}
	if s.rng.IntN(4) == 0 { // the journal is full most of the time, so that released blocks are overwritten at once
		s.flood = true
		s.o.JournalBytes, s.o.DirectBytes, s.o.BatchBytesMax = 1<<20, -1, 16<<10
		s.sizes = []int{4096, 8000, 16_000}
	}
	if s.large = s.large && s.changing && !s.flood; s.large {
		s.sizes = []int{100, 1000, 600_000}
	}
	return s
}

func (s *engineSim) pick(v ...int) int { return v[s.rng.IntN(len(v))] }

// life opens the directory, checks it, uses it, and ends it.
func (s *engineSim) life() error {
	s.lives++
	if s.reshard {
		s.shards = 1 + s.rng.IntN(s.shardsMax)
	}
	if s.changing {
		s.redrawOptions()
	}
	boot, err := s.open()
	if err != nil {
		return err
	}
	if err := s.compare(boot); err != nil {
		return err
	}
	if err := s.start(boot); err != nil {
		return err
	}
	if err := s.audit(); err != nil {
		return err
	}
	turns := 20 + s.rng.IntN(400)
	if s.many {
		turns /= 8
	}
	if err := s.use(turns); err != nil {
		return err
	}
	switch s.rng.IntN(6) {
	case 0, 1:
		if err := s.quiesce(); err != nil {
			return err
		}
	}
	s.clean = false
	if s.rng.IntN(4) == 0 && !s.broken {
		if err := s.shutdown(); err != nil {
			return err
		}
		s.clean = true
	}
	s.end()
	if s.clean || !s.large && s.also.IntN(3) > 0 {
		return nil
	}
	for range 3 {
		if err := s.damage(); err != nil {
			return err
		}
	}
	return nil
}

// end stops the process: by kill -9, or by a power cut.
func (s *engineSim) end() {
	s.w.Stop()
	for _, n := range s.nodes {
		for _, slot := range n.logs {
			n.slots[slot].startAt = n.eng.StartDurable(slot)
		}
	}
	s.disk.Fail = nil
	s.broken = false
	s.nodes = nil
	s.freeArenas()
	if s.rng.IntN(3) == 0 {
		s.w.Logf("--- kill -9")
		s.disk.Kill(s.rng)
	} else {
		s.w.Logf("--- power cut")
		s.disk.PowerCut(s.rng)
	}
}

func (s *engineSim) freeArenas() {
	for _, a := range s.arenas {
		a.Unmap()
	}
	s.arenas = nil
}

func (s *engineSim) arena(n int) *mem.Arena {
	a, err := mem.Map(n, mem.Options{Poison: true})
	if err != nil {
		panic(err)
	}
	s.arenas = append(s.arenas, a)
	return a
}

// attempt recovers once, in a process of its own. crashed says whether the process was
// killed after crashIn events; 0: it is not killed.
func (s *engineSim) attempt(crashIn int) (boot *engine.RecoveredState, crashed bool, err error) {
	defer func() {
		p := recover()
		if _, ok := p.(sim.Crash); ok {
			s.end()
			crashed = true
			return
		}
		if p != nil {
			panic(p)
		}
	}()
	s.w.CrashIn = crashIn
	arena := s.arena(recoveryArenaBytes)
	ring := sim.NewRing(s.w, s.disk, arena, s.mood)
	done := work{}
	end := done.count(s.disk)
	defer end()
	boot, err = recovery.Recover(ring, arena, s.recoverOptions())
	s.w.CrashIn = 0
	if err == nil && !s.damaged {
		err = done.check(s.disk)
	}
	if err == nil && ring.InFlight()+ring.Ready() > 0 {
		err = fmt.Errorf("recovery left %d operations in flight and %d completions", ring.InFlight(), ring.Ready())
	}
	return boot, false, err
}

// open recovers, with crashes during recovery, and for some seeds twice: the second recovery
// must find the same as the first.
func (s *engineSim) open() (*engine.RecoveredState, error) {
	for s.rng.IntN(3) == 0 {
		n := 1 + s.rng.IntN(1<<s.rng.IntN(10))
		boot, crashed, err := s.attempt(n)
		if err != nil {
			return nil, fmt.Errorf("opening: %w", err)
		}
		if crashed {
			s.w.Logf("--- while opening, after %d events", n)
			s.clean = false
			continue
		}
		// recovery completed before the crash: everything must be durable, so the crash loses nothing
		if err := s.compare(boot); err != nil {
			return nil, err
		}
		s.end()
		s.clean = false
	}
	boot, _, err := s.attempt(0)
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	if s.rng.IntN(4) == 0 {
		if err := s.compare(boot); err != nil {
			return nil, err
		}
		before := s.describe(boot)
		if s.rng.IntN(2) == 0 {
			s.end()
		}
		if boot, _, err = s.attempt(0); err != nil {
			return nil, fmt.Errorf("opening again: %w", err)
		}
		if after := s.describe(boot); after != before {
			return nil, fmt.Errorf("NOT IDEMPOTENT: recovered twice\n first: %s\nsecond: %s", before, after)
		}
	}
	if s.rng.IntN(3) == 0 {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	return boot, nil
}

func (s *engineSim) describe(boot *engine.RecoveredState) string {
	out := ""
	for _, b := range s.books {
		if l, _ := s.find(boot, b.id); l != nil {
			out += fmt.Sprintf("log %d: %d..%d lost %v; ", l.ID, l.Start, l.End, l.Holes)
		}
	}
	return out
}

func (s *engineSim) find(boot *engine.RecoveredState, id uint64) (*engine.RecoveredLog, int) {
	for i := range boot.Shards {
		for k := range boot.Shards[i].Logs {
			if l := &boot.Shards[i].Logs[k]; l.ID == id {
				return l, i
			}
		}
	}
	return nil, 0
}

func (s *engineSim) home(id uint64) int {
	if id == 1 {
		return 0
	}
	return 1 + int(id%uint64(s.shards))
}

// compare compares what was recovered with the oracle, and updates the oracle with what was
// not known.
func (s *engineSim) compare(boot *engine.RecoveredState) error {
	if len(boot.Shards) != s.shards+1 {
		return fmt.Errorf("recovered %d shards, want %d and the control shard", len(boot.Shards), s.shards)
	}
	known := 0
	for i := range boot.Shards {
		known += len(boot.Shards[i].Logs)
	}
	for _, b := range s.books {
		l, at := s.find(boot, b.id)
		if l == nil {
			if b.fate == open {
				return fmt.Errorf("LOST: log %d is gone, of %d batches, seen %d", b.id, len(b.batches), b.seen)
			}
			if b.fate == deleting {
				b.fate = gone
			}
			if b.fate == opening {
				b.fate = absent
			}
			continue
		}
		known--
		if at != s.home(b.id) {
			return fmt.Errorf("log %d is on shard %d, its place is %d", b.id, at, s.home(b.id))
		}
		switch b.fate {
		case gone:
			return fmt.Errorf("RETURNED: log %d was deleted", b.id)
		case absent:
			return fmt.Errorf("INVENTED: log %d was never opened", b.id)
		}
		b.fate = open
		if len(l.Holes) > 0 {
			return fmt.Errorf("FALSE ROT: log %d: %v", b.id, l.Holes)
		}
		if l.Start < b.startAt {
			return fmt.Errorf("RETURNED: log %d starts at %d, %d was durable", b.id, l.Start, b.startAt)
		}
		if l.Start != b.start {
			if l.Start < b.start || l.Start > b.startTo {
				return fmt.Errorf("log %d starts at %d, want %d..%d", b.id, l.Start, b.start, b.startTo)
			}
			b.forget(l.Start)
		}
		b.startTo = b.start
		if n := len(l.Record.Epochs); n > format.EpochsMax {
			return fmt.Errorf("log %d has %d leader epochs, at most %d are kept", b.id, n, format.EpochsMax)
		}
		if s.clean && l.End != b.end() {
			return fmt.Errorf("LOST: log %d ends at %d after a clean stop, want %d", b.id, l.End, b.end())
		}
		if err := b.truncate(l.End); err != nil {
			return err
		}
		if err := s.headers(b, l); err != nil {
			return err
		}
		// a recovered log is durable: the next recovery must not lose it
		b.see(l.End)
	}
	if known > 0 {
		return fmt.Errorf("INVENTED: %d logs that nobody opened", known)
	}
	return nil
}

// headers checks that the attachment and the headers of later batches have every batch of
// the log.
func (s *engineSim) headers(b *book, l *engine.RecoveredLog) error {
	told := b.start
	if len(l.Attachment) > 0 {
		if len(l.Attachment) != attachmentBytes || binary.LittleEndian.Uint64(l.Attachment) != b.id {
			return fmt.Errorf("log %d: an attachment of %d bytes that is not its own: %x", b.id, len(l.Attachment), l.Attachment[:min(16, len(l.Attachment))])
		}
		told = max(told, int64(binary.LittleEndian.Uint64(l.Attachment[8:])))
	}
	if len(l.Headers)%headBytes != 0 {
		return fmt.Errorf("log %d: %d bytes of headers, not a multiple of %d", b.id, len(l.Headers), headBytes)
	}
	heads := l.Headers
	for len(heads) > 0 && int64(binary.BigEndian.Uint64(heads))+int64(binary.BigEndian.Uint32(heads[23:]))+1 <= b.start {
		heads = heads[headBytes:] // deleted since, but remembered for its producer
	}
	n := len(heads) / headBytes
	if n > len(b.batches) {
		return fmt.Errorf("log %d: headers of %d batches, it has %d", b.id, n, len(b.batches))
	}
	rest := b.batches[len(b.batches)-n:]
	var want [headBytes]byte
	for i := range rest {
		t := &rest[i]
		t.head(want[:])
		got := heads[i*headBytes : (i+1)*headBytes]
		binary.BigEndian.PutUint32(want[17:], binary.BigEndian.Uint32(got[17:])) // the checksum
		if string(got) != string(want[:]) {
			return fmt.Errorf("CHANGED: log %d: header %d of %d is not batch %d..%d's: %s", b.id, i, n, t.base, t.end(), difference(want[:], got))
		}
	}
	from := b.end()
	if n > 0 {
		from = rest[0].base
	}
	if from > told && from > b.start {
		return fmt.Errorf("log %d: the attachment tells of batches below %d, the headers of those from %d on", b.id, told, from)
	}
	return nil
}

const attachmentBytes = 32

// Attachment is what the shard stores with a checkpoint.
func (n *node) Attachment(l engine.Slot, dst []byte) int {
	b := n.slots[l]
	if b == nil || len(dst) < attachmentBytes {
		return 0
	}
	binary.LittleEndian.PutUint64(dst, b.id)
	binary.LittleEndian.PutUint64(dst[8:], uint64(b.end()))
	binary.LittleEndian.PutUint64(dst[16:], uint64(len(b.batches)))
	binary.LittleEndian.PutUint64(dst[24:], b.id*0x9e3779b97f4a7c15)
	return attachmentBytes
}

// start makes the shards of a life.
func (s *engineSim) start(boot *engine.RecoveredState) error {
	s.freeArenas()
	s.nodes, s.epoch = nil, boot.LeaderEpoch()
	for i := range s.shards + 1 {
		n := &node{s: s, shard: i, slots: map[engine.Slot]*book{}}
		arena := s.arena(shardArenaBytes)
		if s.warms.IntN(3) == 0 {
			n.cold, n.warmEvery = arena, 1<<s.warms.IntN(12)
			arena.Warming()
		}
		n.ring = sim.NewRing(s.w, s.disk, arena, s.mood)
		var err error
		if n.eng, err = engine.New(n.ring, arena, boot, i, n, s.o); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
		arena.Seal()
		s.nodes = append(s.nodes, n)
	}
	for _, b := range s.books {
		if b.fate != open {
			continue
		}
		n := s.nodes[s.home(b.id)]
		slot, ok := n.eng.Lookup(b.id)
		if !ok {
			return fmt.Errorf("LOST: log %d was recovered and is not open on shard %d", b.id, n.shard)
		}
		n.adopt(slot, b)
		e := n.eng
		if e.Start(slot) != b.start || e.End(slot) != b.end() || e.Durable(slot) != b.end() {
			return fmt.Errorf("log %d opened with %d..%d (durable %d), recovered %d..%d", b.id, e.Start(slot), e.End(slot), e.Durable(slot), b.start, b.end())
		}
	}
	return nil
}

func (n *node) adopt(slot engine.Slot, b *book) {
	if n.slots[slot] != nil {
		panic(fmt.Sprintf("slot %d is log %d's and log %d's", slot, n.slots[slot].id, b.id))
	}
	n.slots[slot] = b
	n.logs = append(n.logs, slot)
	b.shard = n.shard
}

func (n *node) forget(slot engine.Slot) {
	delete(n.slots, slot)
	for i, l := range n.logs {
		if l == slot {
			n.logs = append(n.logs[:i], n.logs[i+1:]...)
			return
		}
	}
}

// turn is one turn of a shard: completions, requests (do), the engine's own step, its
// events.
func (n *node) turn(do func() error) error {
	var out [64]ioring.Completion
	n.ring.Wait(n.s.w.Now)
	if n.cold != nil && n.s.warms.IntN(n.warmEvery) == 0 {
		n.cold.Warm()
	}
	for {
		k := n.ring.Reap(out[:])
		for _, c := range out[:k] {
			n.eng.Complete(c, n.s.w.Now)
		}
		if k < len(out) {
			break
		}
	}
	if err := n.events(); err != nil {
		return err
	}
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	n.sleep = n.eng.Step(n.s.w.Now)
	if err := n.events(); err != nil {
		return err
	}
	n.s.progressed()
	n.ring.Submit()
	return n.durable()
}

// durable records what each log reports as durable: it may not be lost from now on.
func (n *node) durable() error {
	for _, slot := range n.logs {
		b := n.slots[slot]
		d := n.eng.Durable(slot)
		if d < b.seen || d > b.end() || n.eng.End(slot) != b.end() {
			if n.failed && d >= b.seen && d <= b.end() {
				continue
			}
			return fmt.Errorf("log %d: durable %d, end %d; it was %d, and %d were appended", b.id, d, n.eng.End(slot), b.seen, b.end())
		}
		b.see(d)
	}
	return nil
}

func (n *node) user(a ask) uint32 {
	for i := range n.asks {
		if n.asks[i].kind == askNone {
			n.asks[i] = a
			return uint32(i)
		}
	}
	n.asks = append(n.asks, a)
	return uint32(len(n.asks) - 1)
}

func (n *node) events() error {
	for {
		ev, ok := n.eng.Next()
		if !ok {
			return nil
		}
		n.s.w.Logf("shard %d event %d slot %d user %d status %d", n.shard, ev.Kind, ev.Slot, ev.User, ev.Status)
		switch ev.Kind {
		case engine.Durable, engine.HolesPassed:
			continue
		case engine.Failed:
			n.failed = true
			if !n.s.broken {
				return fmt.Errorf("shard %d says that its storage failed, and none did", n.shard)
			}
			continue
		}
		if int(ev.User) >= len(n.asks) || n.asks[ev.User].kind == askNone {
			return fmt.Errorf("shard %d: an event %d for user %d, who asked nothing", n.shard, ev.Kind, ev.User)
		}
		a := n.asks[ev.User]
		n.asks[ev.User] = ask{}
		switch {
		case ev.Kind == engine.Opened && a.kind == askOpen:
			switch {
			case ev.Status == engine.OK:
				a.book.fate = open
				n.adopt(ev.Slot, a.book)
			case ev.Status == engine.NoSpace && n.s.full, n.failed:
				if a.book.fate == opening && ev.Status == engine.NoSpace {
					a.book.fate = absent
				}
			default:
				return fmt.Errorf("opening log %d: status %d", a.book.id, ev.Status)
			}
		case ev.Kind == engine.Deleted && a.kind == askDelete:
			if ev.Status != engine.OK {
				if n.failed {
					continue
				}
				return fmt.Errorf("deleting log %d: status %d", a.book.id, ev.Status)
			}
			a.book.fate = gone
			n.forget(a.slot)
		case ev.Kind == engine.ReadDone && a.kind == askRead:
			if err := n.readDone(a, ev); err != nil {
				return err
			}
		default:
			return fmt.Errorf("shard %d: an event %d for user %d, who asked for %d", n.shard, ev.Kind, ev.User, a.kind)
		}
	}
}

// append tries to append one batch. False: the engine has no room now.
func (n *node) append(slot engine.Slot) (bool, error) {
	s, b := n.s, n.slots[slot]
	s.clockMS += int64(s.rng.IntN(20))
	t := batch{log: b.id, count: 1 + uint32(s.rng.IntN(s.pick(1, 5, 1000))), time: s.clockMS - int64(s.rng.IntN(50))}
	size := s.sizes[s.rng.IntN(len(s.sizes))]
	t.n = max(headBytes, min(size+s.rng.IntN(size/2+1), s.o.BatchBytesMax))
	dst, base, st := n.eng.Reserve(slot, t.n)
	switch st {
	case engine.OK:
	case engine.WaitMemory, engine.WaitRoom:
		return false, nil
	case engine.NoSpace:
		if !s.full && !s.broken {
			return false, fmt.Errorf("log %d: no space on a disk without limit", b.id)
		}
		return false, nil
	default:
		if s.broken {
			return false, nil
		}
		return false, fmt.Errorf("log %d: appending %d bytes: status %d", b.id, t.n, st)
	}
	if len(dst) != t.n || base != b.end() {
		return false, fmt.Errorf("log %d: reserved %d bytes at offset %d, want %d at %d", b.id, len(dst), base, t.n, b.end())
	}
	t.base = base
	s.serial++
	t.serial = s.serial
	crc := t.fill(dst)
	if s.rng.IntN(30) == 0 {
		n.eng.Abort()
		return true, nil
	}
	n.eng.Commit(engine.Meta{Count: t.count, MaxTime: t.time, TimesChecked: t.serial%4 != 0, CRC: crc})
	b.began(s.epoch, t.base)
	b.batches = append(b.batches, t)
	s.appends++
	return true, nil
}

// read reads from an offset drawn from the seed, from memory or from disk.
func (n *node) read(slot engine.Slot, from int64) error {
	b := n.slots[slot]
	to := n.eng.Durable(slot)
	limit := n.s.pick(1, 500, 10_000, 1<<20)
	views := make([]engine.View, n.s.pick(1, 2, 64))
	k, st := n.eng.Read(slot, from, to, limit, views)
	switch st {
	case engine.OK:
		n.s.reads++
		return n.look(hold{views: views[:k], book: b, from: from, turns: n.s.rng.IntN(30)}, to, limit)
	case engine.Empty:
		if from < to {
			return fmt.Errorf("log %d: nothing at %d, durable is %d", b.id, from, to)
		}
		return nil
	case engine.OutOfRange:
		if from >= n.eng.Start(slot) && from <= to {
			return fmt.Errorf("log %d: %d is out of range of %d..%d", b.id, from, n.eng.Start(slot), to)
		}
		return nil
	case engine.NotCached:
		if from < n.eng.Start(slot) || from >= to {
			return fmt.Errorf("log %d: %d is cold, and not in %d..%d", b.id, from, n.eng.Start(slot), to)
		}
		user := n.user(ask{kind: askRead, book: b, slot: slot, from: from})
		st := n.eng.ReadDisk(slot, from, user)
		if st != engine.OK {
			n.asks[user] = ask{}
			if st != engine.WaitMemory && !n.failed {
				return fmt.Errorf("log %d: reading cold from %d: status %d", b.id, from, st)
			}
		}
		return nil
	}
	return fmt.Errorf("log %d: reading from %d to %d: status %d", b.id, from, to, st)
}

func (n *node) readDone(a ask, ev engine.Event) error {
	if ev.Status != engine.OK {
		if n.s.broken || a.book.fate != open || a.from < a.book.start {
			return nil
		}
		return fmt.Errorf("log %d: a cold read from %d: status %d", a.book.id, a.from, ev.Status)
	}
	n.s.reads++
	views := make([]engine.View, n.s.pick(1, 2, 64))
	limit := n.s.pick(1, 500, 10_000, 1<<20)
	if n.slots[a.slot] != a.book || a.book.fate != open {
		n.eng.ReadEnd(ev.Read)
		return nil
	}
	to := n.eng.Durable(a.slot)
	k := n.eng.ReadViews(ev.Read, a.from, to, limit, views)
	return n.look(hold{views: views[:k], book: a.book, from: a.from, read: ev.Read, cold: true, turns: n.s.rng.IntN(30)}, to, limit)
}

func (h *hold) bytes() []byte {
	var p []byte
	for _, v := range h.views {
		p = append(p, v.Bytes...)
	}
	return p
}

// look checks what was read, and keeps its memory for a while.
func (n *node) look(h hold, to int64, limit int) error {
	b := h.book
	p := h.bytes()
	if len(p) == 0 {
		return fmt.Errorf("log %d: a read from %d to %d gave no bytes (cold: %v)", b.id, h.from, to, h.cold)
	}
	end, err := b.verify(p, h.from, n.s.scratch)
	if err != nil {
		return err
	}
	if end > to {
		return fmt.Errorf("log %d: a read from %d to %d went to %d", b.id, h.from, to, end)
	}
	if first := b.batches[b.at(h.from)]; len(p) > limit && end != first.end() {
		return fmt.Errorf("log %d: a read of at most %d bytes gave %d", b.id, limit, len(p))
	}
	b.see(end)
	if h.turns == 0 {
		return n.release(h)
	}
	n.holds = append(n.holds, h)
	return nil
}

func (n *node) release(h hold) error {
	var err error
	if h.book.fate == open && h.from >= h.book.start {
		_, err = h.book.verify(h.bytes(), h.from, n.s.scratch)
		if err != nil {
			err = fmt.Errorf("memory that was pinned: %w", err)
		}
	}
	for _, v := range h.views {
		n.eng.Unpin(v.Pin)
	}
	if h.cold {
		n.eng.ReadEnd(h.read)
	}
	return err
}

func (n *node) releaseDue(all bool) error {
	rest := n.holds[:0]
	for _, h := range n.holds {
		if h.turns--; h.turns > 0 && !all {
			rest = append(rest, h)
			continue
		}
		if err := n.release(h); err != nil {
			return err
		}
	}
	n.holds = rest
	return nil
}

// act does one random thing.
func (n *node) act() error {
	s := n.s
	if err := n.releaseDue(false); err != nil {
		return err
	}
	if len(n.logs) == 0 || s.rng.IntN(60) == 0 && len(n.logs) < s.o.LogsMax {
		return n.openLog()
	}
	slot := n.logs[s.rng.IntN(len(n.logs))]
	b := n.slots[slot]
	switch x := s.rng.IntN(100); {
	case x < 55:
		if b.fate != open {
			return nil
		}
		most := s.pick(1, 1, 2, 8)
		if s.flood {
			most = s.pick(2, 8, 32)
		}
		for k := most; k > 0; k-- {
			if ok, err := n.append(slot); err != nil || !ok {
				return err
			}
		}
	case x < 75:
		if b.fate == open {
			lo, hi := n.eng.Start(slot), n.eng.Durable(slot)
			return n.read(slot, lo+s.rng.Int64N(hi-lo+1))
		}
	case x < 78:
		if b.fate == open {
			if err := n.epochs(slot); err != nil {
				return err
			}
			return n.seek(slot)
		}
	case x < 80:
		if b.fate == open && s.rng.IntN(3) == 0 {
			return n.cut(slot)
		}
	case x < 81 && s.rng.IntN(2) == 0:
		if b.fate == open && n.shard != 0 {
			user := n.user(ask{kind: askDelete, book: b, slot: slot})
			if st := n.eng.DeleteLog(slot, user); st != engine.OK {
				n.asks[user] = ask{}
				if !n.failed && st != engine.WaitMemory && st != engine.WaitRoom {
					return fmt.Errorf("deleting log %d: status %d", b.id, st)
				}
				return nil
			}
			b.fate = deleting
		}
	}
	return nil
}

func (n *node) openLog() error {
	s := n.s
	id := uint64(0)
	there := 0
	for _, b := range s.books {
		if b.fate != absent && b.fate != gone && b.id != 1 {
			there++
		}
	}
	if n.shard != 0 && s.reshard && there >= s.o.LogsMax {
		return nil // in another life one shard may have to hold all of them
	}
	if n.shard == 0 {
		if len(s.books) > 0 && s.books[0].fate != absent {
			return nil
		}
		id = 1
	}
	for id == 0 { // ids are used once; those of other shards are skipped
		next := uint64(len(s.books) + 1)
		s.books = append(s.books, &book{id: next})
		if next != 1 && s.home(next) == n.shard {
			id = next
		}
	}
	if len(s.books) == 0 {
		s.books = append(s.books, &book{id: 1})
	}
	b := s.books[id-1]
	user := n.user(ask{kind: askOpen, book: b})
	if st := n.eng.OpenLog(id, user); st != engine.OK {
		n.asks[user] = ask{}
		if n.failed || st == engine.Full || st == engine.WaitMemory || st == engine.WaitRoom || st == engine.NoSpace && s.full {
			return nil
		}
		return fmt.Errorf("opening log %d: status %d", id, st)
	}
	b.fate = opening
	return nil
}

// seek asks where to search for a timestamp, which must not be after the first batch
// behind some offset that has it. For the largest timestamp that can be read the engine
// must not say less than any batch has, nor an offset after the first that has it.
func (n *node) seek(slot engine.Slot) error {
	b := n.slots[slot]
	if len(b.batches) == 0 {
		return nil
	}
	ts := b.batches[n.s.rng.IntN(len(b.batches))].time + int64(n.s.rng.IntN(3)) - 1
	start, durable := n.eng.Start(slot), n.eng.Durable(slot)
	for _, from := range []int64{0, b.batches[len(b.batches)/2].base + 1} {
		base, ok := n.eng.SeekTime(slot, ts, from)
		if ok && base < max(from, start) {
			return fmt.Errorf("log %d: SeekTime from %d says %d", b.id, from, base)
		}
		for i := range b.batches {
			t := &b.batches[i]
			if t.time < ts || t.end() <= max(from, start) {
				continue
			}
			if t.end() <= durable && (!ok || base > max(t.base, from, start)) {
				return fmt.Errorf("log %d: time %d is in batch %d..%d, SeekTime from %d says %d, %v", b.id, ts, t.base, t.end(), from, base, ok)
			}
			break
		}
	}
	most, base := n.eng.MaxTime(slot, durable)
	for i := range b.batches {
		t := &b.batches[i]
		if t.end() <= start || t.end() > durable {
			continue
		}
		if t.time > most || t.time == most && base > max(t.base, start) {
			return fmt.Errorf("log %d: time %d is in batch %d..%d, MaxTime says %d at %d", b.id, t.time, t.base, t.end(), most, base)
		}
		if t.time == most {
			break
		}
	}
	return nil
}

// epochs asks where each leader epoch ends.
func (n *node) epochs(slot engine.Slot) error {
	b, end := n.slots[slot], n.eng.Durable(slot)
	for asked := int32(-2); asked <= n.s.epoch+2; asked++ {
		found, to := n.eng.EpochEnd(slot, asked, end)
		// If a crash has taken the records for which the oldest epoch was dropped, one epoch less is known.
		want := b.epochs.end(asked, n.s.epoch, n.eng.Start(slot), n.eng.End(slot), end, format.EpochsMax)
		or := b.epochs.end(asked, n.s.epoch, n.eng.Start(slot), n.eng.End(slot), end, format.EpochsMax-1)
		if got := (format.EpochStart{Epoch: found, Start: to}); got != want && got != or {
			return fmt.Errorf("EPOCH: log %d, %d..%d: leader epoch %d ends where %d does, at %d; it is %+v of %+v, the present one is %d",
				b.id, n.eng.Start(slot), n.eng.End(slot), asked, found, to, want, b.epochs, n.s.epoch)
		}
	}
	return nil
}

// cut moves a log's start up, like retention.
func (n *node) cut(slot engine.Slot) error {
	b := n.slots[slot]
	lo, hi := n.eng.Start(slot), n.eng.Durable(slot)
	if hi == lo {
		n.eng.DropEmpty(slot)
		return nil
	}
	to := lo + n.s.rng.Int64N(hi-lo+1)
	switch n.s.rng.IntN(8) {
	case 0:
		to = hi
	case 1:
		start, _ := n.eng.RetentionStart(slot, engine.Limits{BytesMax: n.eng.Bytes(slot) / 2})
		to = max(to, start)
	case 2:
		n.eng.RollSegment(slot)
	case 3:
		n.eng.SetSegmentBytes(slot, int64(n.s.pick(0, 300_000, 1<<20)))
	}
	user := n.user(ask{kind: askTruncate, book: b, slot: slot, start: to})
	n.asks[user] = ask{}
	b.startTo = max(b.startTo, to)
	n.eng.TruncateBefore(slot, to, user)
	return nil
}

// audit reads all of every log.
func (s *engineSim) audit() error {
	for _, n := range s.nodes {
		for _, slot := range append([]engine.Slot(nil), n.logs...) {
			if err := n.epochs(slot); err != nil {
				return err
			}
			b := n.slots[slot]
			from, to := n.eng.Start(slot), n.eng.Durable(slot)
			for tries := 0; from < to; tries++ {
				if tries > 20_000 {
					return fmt.Errorf("log %d: reading %d..%d does not end", b.id, from, to)
				}
				views := make([]engine.View, 64)
				k, st := n.eng.Read(slot, from, to, 1<<20, views)
				h := hold{views: views[:k], book: b, from: from}
				switch st {
				case engine.OK:
				case engine.NotCached:
					user := n.user(ask{kind: askTruncate})
					if st := n.eng.ReadDisk(slot, from, user); st != engine.OK {
						return fmt.Errorf("log %d: auditing from %d: cold, status %d", b.id, from, st)
					}
					ev, err := n.await(user)
					if err != nil {
						return err
					}
					if ev.Status != engine.OK {
						return fmt.Errorf("LOST: log %d: auditing from %d: a cold read says status %d", b.id, from, ev.Status)
					}
					h.cold, h.read = true, ev.Read
					h.views = views[:n.eng.ReadViews(ev.Read, from, to, 1<<20, views)]
				default:
					return fmt.Errorf("LOST: log %d: auditing from %d to %d: status %d", b.id, from, to, st)
				}
				p := h.bytes()
				end, err := b.verify(p, from, s.scratch)
				if err != nil {
					return err
				}
				if end == from {
					return fmt.Errorf("log %d: auditing from %d to %d: no bytes", b.id, from, to)
				}
				from = end
				if err := n.release(h); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// await runs turns of a shard until the event for user arrives.
func (n *node) await(user uint32) (engine.Event, error) {
	var out [64]ioring.Completion
	for range 10_000 {
		n.sleep = n.eng.Step(n.s.w.Now)
		for {
			ev, ok := n.eng.Next()
			if !ok {
				break
			}
			if ev.Kind == engine.ReadDone && ev.User == user {
				n.asks[user] = ask{}
				return ev, nil
			}
		}
		n.ring.Wait(n.sleep)
		k := n.ring.Reap(out[:])
		for _, c := range out[:k] {
			n.eng.Complete(c, n.s.w.Now)
		}
	}
	return engine.Event{}, fmt.Errorf("shard %d: an event does not come", n.shard)
}

// use runs turns of the shards at random.
func (s *engineSim) use(turns int) error {
	hurt := 0
	if s.rng.IntN(8) == 0 {
		hurt = 1 + s.rng.IntN(turns)
	}
	for i := range turns {
		if i == hurt && hurt > 0 {
			s.hurt()
		}
		n := s.nodes[s.rng.IntN(len(s.nodes))]
		if err := n.turn(n.act); err != nil {
			return fmt.Errorf("shard %d: %w", n.shard, err)
		}
		s.pass()
	}
	return nil
}

// pass advances the clock: not at all, to the next event, or a little.
func (s *engineSim) pass() {
	switch s.rng.IntN(4) {
	case 0:
	case 1:
		s.w.Step(s.w.Now + 1_000_000)
	default:
		until := s.w.Now + ioring.Instant(s.rng.Int64N(200_000))
		for s.w.Step(until) {
		}
	}
}

// hurt makes some operations of the disk fail from now on.
func (s *engineSim) hurt() {
	s.broken = true
	code := []ioring.Code{ioring.Write, ioring.Sync}[s.rng.IntN(2)]
	once := s.rng.IntN(2) == 0
	skip := s.rng.IntN(5)
	s.w.Logf("--- from now on %s fails", sim.CodeName(code))
	s.disk.Fail = func(c ioring.Code, path string, _ uint64, _ int) int32 {
		if c != code {
			return 0
		}
		if skip--; skip > 0 {
			return 0
		}
		if once && skip < 0 {
			return 0
		}
		return -int32(unix.EIO)
	}
}

// quiesce lets everything finish: appends become durable, requests are answered.
func (s *engineSim) quiesce() error {
	if s.broken {
		return nil
	}
	// A shard that waits for an operation may look for it once a millisecond, and one of seconds is
	// no fault.
	for range 20_000 {
		busy := false
		for _, n := range s.nodes {
			if err := n.releaseDue(true); err != nil {
				return err
			}
			if err := n.turn(nil); err != nil {
				return err
			}
			busy = busy || n.busy()
		}
		if !busy {
			return nil
		}
		s.advance()
	}
	for _, n := range s.nodes {
		if n.busy() {
			return fmt.Errorf("STALLED: shard %d does not finish: %s", n.shard, n.why())
		}
	}
	return nil
}

// advance advances to the next event, or to the time at which a shard wants to wake.
func (s *engineSim) advance() {
	until := ioring.Never
	for _, n := range s.nodes {
		until = min(until, n.sleep)
	}
	if until == ioring.Never && s.w.NextEvent() == ioring.Never {
		until = s.w.Now + 1_000_000
	}
	s.w.Step(max(until, s.w.Now+1))
}

func (n *node) busy() bool { return n.why() != "" }

func (n *node) why() string {
	for _, a := range n.asks {
		if a.kind != askNone {
			return fmt.Sprintf("a request of kind %d for log %d is not answered", a.kind, a.book.id)
		}
	}
	for _, slot := range n.logs {
		if b := n.slots[slot]; b.fate == open && n.eng.Durable(slot) < b.end() && !n.s.full {
			return fmt.Sprintf("log %d is durable to %d of %d", b.id, n.eng.Durable(slot), b.end())
		}
	}
	return ""
}

// shutdown stops cleanly.
func (s *engineSim) shutdown() error {
	if err := s.quiesce(); err != nil {
		return err
	}
	for _, n := range s.nodes {
		n.eng.Shutdown()
	}
	for range 4000 {
		idle := true
		for _, n := range s.nodes {
			if err := n.turn(nil); err != nil {
				return fmt.Errorf("stopping: %w", err)
			}
			idle = idle && n.eng.Idle()
		}
		if idle {
			for _, n := range s.nodes {
				if k := n.ring.InFlight(); k > 0 {
					return fmt.Errorf("shard %d says that it is idle with %d operations in flight", n.shard, k)
				}
			}
			return nil
		}
		s.advance()
	}
	return fmt.Errorf("STALLED: a clean stop does not end")
}

func (s *engineSim) progressed() {}
