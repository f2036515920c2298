package lives

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/sim"
)

// rotWork runs one seed of the storage of a whole broker on a disk whose bytes change. What
// was acknowledged lies still when the process ends. Then some runs and frames are damaged.
// From there on a log has lost exactly those batches of which no whole copy is left:
// everything else is read, on both sides of each hole and in later lives too; what is
// lost is answered with an error, found by the checker with its offsets, and
// stops appends until the log's start has passed it, or a repair has cut it off.
func rotWork(r Run) (res Result) {
	s := newEngineSim(r)
	defer s.finish(&res)
	rot := &rotSim{engineSim: s}
	for _, life := range []func() error{rot.write, rot.damage, rot.live, rot.again, rot.leave} {
		if err := life(); err != nil {
			res.Err = fmt.Errorf("life %d: %w", s.lives, err)
			return res
		}
	}
	return res
}

// rotSim is the world of one seed.
type rotSim struct {
	*engineSim
	lost map[*book][]span // by log, in order: what is to be lost
	last map[*book]int64  // the base of each log's last batch, which stays whole
	told map[*book]bool   // logs of which a checkpoint says that they have lost something
	hurt bool             // frames were damaged
	ends map[*book]bool   // logs behind whose ends more may be lost: of a broken frame it is not known whose entries it held
}

// span is the offsets from to to - 1.
type span struct{ from, to int64 }

// write is the lives before the damage. At the end of the last one everything is durable, and
// a last batch of each log says so.
func (s *rotSim) write() error {
	for last := s.rng.IntN(3); last >= 0; last-- {
		s.lives++
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
		if err := s.turns(20 + s.rng.IntN(400)); err != nil {
			return err
		}
		if last > 0 {
			s.end()
			continue
		}
		if err := s.rest(); err != nil {
			return err
		}
		if err := s.lastBatches(); err != nil {
			return err
		}
		if s.clean = s.rng.IntN(4) == 0; s.clean {
			if err := s.shutdown(); err != nil {
				return err
			}
		}
		s.end()
	}
	return nil
}

// turns turns the shards at random, on a disk that does not fail.
func (s *rotSim) turns(n int) error {
	for range n {
		node := s.nodes[s.rng.IntN(len(s.nodes))]
		if err := node.turn(node.act); err != nil {
			return fmt.Errorf("shard %d: %w", node.shard, err)
		}
		s.pass()
	}
	return nil
}

// rest lets everything finish, and some time go by in which what is durable is flushed.
func (s *rotSim) rest() error {
	if err := s.quiesce(); err != nil {
		return err
	}
	for end := s.w.Now + ioring.Instant(s.pick(0, 200e6, 2e9, 5e9)); s.w.Now < end; {
		if err := s.round(); err != nil {
			return err
		}
	}
	return nil
}

// round turns each shard once, and lets time go by.
func (s *rotSim) round() error {
	for _, n := range s.nodes {
		if err := n.turn(nil); err != nil {
			return err
		}
	}
	s.advance()
	return nil
}

// lastBatches appends a batch to each log, and waits until it is durable.
func (s *rotSim) lastBatches() error {
	s.last = map[*book]int64{}
	for _, n := range s.nodes {
		if err := n.releaseDue(true); err != nil {
			return err
		}
		for _, slot := range n.logs {
			b := n.slots[slot]
			for tries, was := 0, len(b.batches); len(b.batches) == was; tries++ {
				if b.fate != open {
					break
				}
				if _, err := n.append(slot); err != nil {
					return err
				}
				if tries > 4000 {
					return fmt.Errorf("STALLED: log %d takes no batch", b.id)
				}
				if err := s.round(); err != nil {
					return err
				}
			}
			if b.fate == open {
				s.last[b] = b.batches[len(b.batches)-1].base
			}
		}
	}
	if err := s.quiesce(); err != nil {
		return err
	}
	for _, n := range s.nodes {
		for _, slot := range n.logs {
			for tries := 0; n.eng.StartDurable(slot) < n.eng.Start(slot); tries++ {
				if tries > 4000 {
					return fmt.Errorf("STALLED: log %d: its start is not durable", n.slots[slot].id)
				}
				if err := s.round(); err != nil {
					return err
				}
			}
			n.slots[slot].forget(n.eng.Start(slot))
		}
	}
	return nil
}

// piece is a run or a frame on disk that is whole.
type piece struct {
	path    string
	at      int64
	bytes   int64
	entries []pieceEntry
	untold  bool   // a frame of which no frame says that it was durable: as if a power cut had torn it
	frame   uint64 // its sequence
}

type pieceEntry struct {
	kind  uint16
	log   uint64
	base  int64
	count uint32
	batch []byte

	flushed bool // of a frame: a checkpoint has it in a segment
}

// pieces finds the runs of all logs, and the frames that the next start replays. Of a segment
// that is what follows one another from its beginning: behind the last run there may be
// whole ones that a former life has left.
func (s *rotSim) pieces() (all []piece) {
	epoch, shards := s.superblock()
	for _, path := range s.disk.Paths() {
		var generation, journal, frame, durable uint64
		var ends map[uint64]int64
		p := s.disk.Contents(path)
		if _, err := fmt.Sscanf(path, "segments/%016x", &generation); err != nil {
			var shard uint32
			if _, err := fmt.Sscanf(path, "shard-%03d/journal", &shard); err != nil || shard >= shards || !strings.HasSuffix(path, "/journal") {
				continue
			}
			var replayed bool
			if journal, frame, ends, replayed = s.checkpoint(shard, epoch); !replayed {
				continue
			}
		}
		first := len(all)
		for at := 0; at+4096 <= len(p); {
			q := p[at:]
			n, ok := wholePiece(q)
			if !ok && generation > 0 {
				break
			}
			if !ok {
				at += 4096
				continue
			}
			magic := binary.LittleEndian.Uint32(q)
			run := magic == 0x4e524254 && binary.LittleEndian.Uint64(q[120:]) == generation && generation > 0
			live := magic == 0x52464254 && binary.LittleEndian.Uint32(q[32:]) == epoch && binary.LittleEndian.Uint64(q[112:]) == journal && binary.LittleEndian.Uint64(q[128:]) >= frame
			if run || live {
				all = append(all, piece{path: path, at: int64(at), bytes: int64(256+n+4095) &^ 4095, entries: entriesOf(q[256 : 256+n])})
			}
			if live {
				last := &all[len(all)-1]
				// What a checkpoint has in segments is not replayed.
				for i := range last.entries {
					e := &last.entries[i]
					e.flushed = e.kind == 1 && e.base < ends[e.log]
				}
				last.frame, durable = binary.LittleEndian.Uint64(q[128:]), max(durable, binary.LittleEndian.Uint64(q[136:]))
			}
			at += (256 + n + 4095) &^ 4095
		}
		for i := range all[first:] {
			all[first+i].untold = all[first+i].frame > durable
		}
	}
	return all
}

// wholePiece says whether a run or frame begins here and is whole, and the length of its body.
func wholePiece(p []byte) (n int, ok bool) {
	n = int(binary.LittleEndian.Uint32(p[36:]))
	magic := binary.LittleEndian.Uint32(p)
	ok = (magic == 0x4e524254 || magic == 0x52464254) && crcWithout(p[:256], 44) == binary.LittleEndian.Uint32(p[44:]) &&
		256+n <= len(p) && crc32.Checksum(p[256:256+n], castagnoli) == binary.LittleEndian.Uint32(p[48:])
	return n, ok
}

// superblock is the epoch of the last life, and its shards.
func (s *rotSim) superblock() (epoch, shards uint32) {
	p, sequence := s.disk.Contents("superblock"), uint64(0)
	for ; len(p) >= 4096; p = p[4096:] {
		if n := binary.LittleEndian.Uint64(p[40:]); n > sequence && crc32.Checksum(p[:4092], castagnoli) == binary.LittleEndian.Uint32(p[4092:]) {
			sequence, epoch, shards = n, binary.LittleEndian.Uint32(p[32:]), binary.LittleEndian.Uint32(p[36:])
		}
	}
	return epoch, shards
}

// checkpoint is which frames of a shard's journal are replayed: those of that journal from
// frame on; and up to where each log is in segments already. False: none, after a clean
// stop.
func (s *rotSim) checkpoint(shard, epoch uint32) (journal, frame uint64, ends map[uint64]int64, replayed bool) {
	sequence := uint64(0)
	for slot := range 2 {
		p := s.disk.Contents(fmt.Sprintf("shard-%03d/checkpoint-%d", shard, slot))
		if len(p) < 4096 || crcWithout(p[:128], 44) != binary.LittleEndian.Uint32(p[44:]) || binary.LittleEndian.Uint32(p[32:]) != epoch {
			continue
		}
		n := int(binary.LittleEndian.Uint32(p[36:]))
		if have := binary.LittleEndian.Uint64(p[56:]); have > sequence && 128+n <= len(p) && crc32.Checksum(p[128:128+n], castagnoli) == binary.LittleEndian.Uint32(p[48:]) {
			sequence, journal, frame, replayed = have, binary.LittleEndian.Uint64(p[64:]), binary.LittleEndian.Uint64(p[80:]), binary.LittleEndian.Uint32(p[52:])&1 == 0
			ends = map[uint64]int64{}
			for body := p[128 : 128+n]; len(body) >= 80; {
				ends[binary.LittleEndian.Uint64(body)] = int64(binary.LittleEndian.Uint64(body[16:]))
				attached, segments := binary.LittleEndian.Uint32(body[60:])+binary.LittleEndian.Uint32(body[72:]), binary.LittleEndian.Uint32(body[64:])
				body = body[80+12*int(binary.LittleEndian.Uint16(body[68:]))+48*int(segments)+int(attached):]
			}
		}
	}
	return journal, frame, ends, replayed
}

func crcWithout(p []byte, field int) uint32 {
	crc := crc32.Update(0, castagnoli, p[:field])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	return crc32.Update(crc, castagnoli, p[field+4:])
}

func entriesOf(p []byte) (all []pieceEntry) {
	for len(p) >= 64 {
		n := int(binary.LittleEndian.Uint32(p[28:]))
		all = append(all, pieceEntry{kind: binary.LittleEndian.Uint16(p[4:]), log: binary.LittleEndian.Uint64(p[8:]), base: int64(binary.LittleEndian.Uint64(p[16:])),
			count: binary.LittleEndian.Uint32(p[24:]), batch: p[64 : 64+n]})
		p = p[min(len(p), 64+(n+7)&^7):]
	}
	return all
}

// mayRot says whether a piece may be damaged. The control shard's may not, nor what says that
// everything else was durable, nor what is not to be read again: a log's deletion, or that its
// start has moved.
func (s *rotSim) mayRot(p *piece) bool {
	for _, e := range p.entries {
		if e.log == 1 || e.kind == 5 || e.kind == 6 {
			return false
		}
		for b, base := range s.last {
			if b.id == e.log && e.kind == 1 && e.base >= base {
				return false
			}
		}
	}
	return len(p.entries) > 0 && !p.untold
}

// damage changes bytes of some runs and frames, and works out what is lost by that.
func (s *rotSim) damage() error {
	s.damaged = true
	pieces := s.pieces()
	if i := slices.IndexFunc(pieces, func(p piece) bool { return s.mayRot(&p) }); i < 0 {
		return nil
	}
	for range s.pick(1, 1, 2, 3) {
		i := s.rng.IntN(len(pieces))
		for !s.mayRot(&pieces[i]) {
			i = (i + 1) % len(pieces)
		}
		for n := s.pick(1, 1, 1, 2, 4); n > 0 && i < len(pieces) && s.mayRot(&pieces[i]); n-- {
			s.rotAt(&pieces[i])
			s.hurt = s.hurt || strings.HasSuffix(pieces[i].path, "journal")
			i++
		}
	}
	whole := map[*book]map[int64]bool{}
	for _, p := range pieces {
		if _, ok := wholePiece(s.disk.Contents(p.path)[p.at:]); !ok {
			continue
		}
		for _, e := range p.entries {
			if e.kind != 1 || e.flushed {
				continue
			}
			b := s.books[e.log-1]
			i := b.at(e.base)
			if b.fate != open || i == len(b.batches) || b.batches[i].base != e.base || b.batches[i].n != len(e.batch) {
				continue
			}
			t := &b.batches[i]
			want := s.scratch[:t.n]
			t.fill(want)
			if string(want) != string(e.batch) {
				continue
			}
			if whole[b] == nil {
				whole[b] = map[int64]bool{}
			}
			whole[b][t.base] = true
		}
	}
	s.lost, s.ends = map[*book][]span{}, map[*book]bool{}
	for _, b := range s.books {
		if b.fate != open {
			continue
		}
		for i := range b.batches {
			t := &b.batches[i]
			from := max(t.base, b.start)
			if t.end() <= b.start || whole[b][t.base] {
				continue
			}
			if n := len(s.lost[b]); n > 0 && s.lost[b][n-1].to == from {
				s.lost[b][n-1].to = t.end()
			} else {
				s.lost[b] = append(s.lost[b], span{from, t.end()})
			}
		}
		if len(s.lost[b]) > 0 {
			s.w.Logf("log %d has lost %v of %d..%d", b.id, s.lost[b], b.start, b.end())
		}
	}
	return nil
}

// rotAt damages a piece: a byte of its header or its body, a block, or all of it.
func (s *rotSim) rotAt(p *piece) {
	at, n := p.at, int64(1)
	switch s.rng.IntN(5) {
	case 0:
		at += s.rng.Int64N(256)
	case 1, 2:
		at += 256 + s.rng.Int64N(max(1, 64*int64(len(p.entries)))) // within its entries in any case
	case 3:
		at, n = at+s.rng.Int64N(p.bytes/4096)*4096, 4096
	case 4:
		n = p.bytes
	}
	s.w.Logf("--- %d bytes rot at %d of %s (%d bytes at %d)", n, at, p.path, p.bytes, p.at)
	if n == 1 {
		s.disk.Flip(p.path, at)
		return
	}
	bytes := make([]byte, n)
	if s.rng.IntN(2) == 0 {
		for i := range bytes {
			bytes[i] = byte(s.rng.Uint32())
		}
	}
	s.disk.Overwrite(p.path, at, bytes)
}

// live is the first life after the damage.
func (s *rotSim) live() error {
	s.lives++
	if s.rng.IntN(2) == 0 {
		if err := s.checkFinds(); err != nil {
			return err
		}
	}
	boot, crashed, err := s.attempt(s.pick(0, 0, 1+s.rng.IntN(300)))
	if err == nil && (crashed || s.rng.IntN(3) == 0) {
		if !crashed {
			s.end()
		}
		s.clean = false
		boot, _, err = s.attempt(0)
	}
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if err := s.serve(boot); err != nil {
		return err
	}
	s.told = map[*book]bool{}
	for _, b := range s.books {
		if l, _ := s.find(boot, b.id); l != nil && len(l.Holes) > 0 {
			s.told[b] = true
		}
	}
	return nil
}

// again is a life after that one, in which there is nothing new.
func (s *rotSim) again() error {
	s.lives++
	if s.clean = s.rng.IntN(2) == 0; s.clean {
		if err := s.shutdown(); err != nil {
			return err
		}
		for b := range s.lost { // order does not matter
			s.told[b] = true
		}
	}
	s.end()
	if err := s.checkFinds(); err != nil {
		return err
	}
	boot, _, err := s.attempt(0)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	return s.serve(boot)
}

// serve begins a life in which everything that is not lost is read.
func (s *rotSim) serve(boot *engine.RecoveredState) error {
	for _, b := range s.books {
		if b.fate != open {
			continue
		}
		l, _ := s.find(boot, b.id)
		if l == nil {
			return fmt.Errorf("LOST: log %d is gone, of %d batches, lost are %v", b.id, len(b.batches), s.lost[b])
		}
		if l.Start != b.start || l.End != b.end() {
			return fmt.Errorf("LOST: log %d is %d..%d, want %d..%d; lost are %v", b.id, l.Start, l.End, b.start, b.end(), s.lost[b])
		}
		for _, hole := range l.Holes {
			if hole.From == hole.To && s.hurt && hole.To == b.end() {
				s.ends[b] = true
			}
		}
	}
	if err := s.start(boot); err != nil {
		return err
	}
	for _, n := range s.nodes {
		for _, slot := range n.logs {
			b := n.slots[slot]
			if _, _, st := n.eng.Reserve(slot, headBytes); s.told[b] && len(s.lost[b]) > 0 && st != engine.LogCorrupt {
				return fmt.Errorf("log %d takes appends: status %d; lost are %v", b.id, st, s.lost[b])
			} else if st == engine.OK {
				n.eng.Abort()
			}
			if err := n.readAround(slot, s.lost[n.slots[slot]]); err != nil {
				return err
			}
			if to := n.eng.Durable(slot); s.ends[b] {
				if _, st := n.eng.Read(slot, to, to, 1<<20, make([]engine.View, 1)); st != engine.Corrupt {
					return fmt.Errorf("HIDDEN: log %d: reading from its end at %d, behind which records may be lost: status %d", b.id, to, st)
				}
			}
		}
	}
	return nil
}

// readAround reads a log from its start to its end, over what is lost of it: batch after batch
// is there, exactly but for those.
func (n *node) readAround(slot engine.Slot, lost []span) error {
	s, b, e := n.s, n.slots[slot], n.eng
	from, to := e.Start(slot), e.Durable(slot)
	for from < to {
		end := to // of what is read without a hole
		if len(lost) > 0 {
			end = lost[0].from
		}
		for from < end {
			got, st, err := n.readOnce(slot, from, to)
			if err != nil {
				return err
			}
			if st != engine.OK {
				return fmt.Errorf("LOST: log %d: reading from %d to %d: status %d; lost are %v", b.id, from, to, st, lost)
			}
			if got > end {
				return fmt.Errorf("HIDDEN: log %d: a read from %d goes to %d over what is lost, %v", b.id, from, got, lost)
			}
			from = got
		}
		if len(lost) == 0 {
			break
		}
		for _, at := range []int64{lost[0].from, lost[0].to - 1, lost[0].from + s.rng.Int64N(lost[0].to-lost[0].from)} {
			if _, st, err := n.readOnce(slot, at, to); err != nil || st != engine.Corrupt {
				return fmt.Errorf("HIDDEN: log %d: reading from %d, which is lost (%v): status %d, %v", b.id, at, lost[0], st, err)
			}
		}
		for from < lost[0].to { // a read finds one broken run
			behind, ok := e.HoleEnd(slot, from)
			if !ok || behind > lost[0].to {
				return fmt.Errorf("log %d: what is lost from %d on ends at %d (%v), want %d", b.id, from, behind, ok, lost[0].to)
			}
			if from = behind; from < lost[0].to {
				if _, st, err := n.readOnce(slot, from, to); err != nil || st != engine.Corrupt {
					return fmt.Errorf("HIDDEN: log %d: reading from %d, which is lost (%v): status %d, %v", b.id, from, lost[0], st, err)
				}
			}
		}
		lost = lost[1:]
	}
	return nil
}

// readOnce reads from an offset, from memory or, in one read or in several that are bounded, from
// disk. It returns where what was read
// ends: that is compared with what was appended.
func (n *node) readOnce(slot engine.Slot, from, to int64) (end int64, st engine.Status, err error) {
	s, b := n.s, n.slots[slot]
	views := make([]engine.View, 64)
	k, st := n.eng.Read(slot, from, to, 1<<20, views)
	h := hold{views: views[:k], book: b, from: from}
	if st == engine.NotCached {
		for bound := []int{1, 64, math.MaxInt / 2}[s.also.IntN(3)]; !h.cold; bound *= 2 {
			user := n.user(ask{kind: askTruncate})
			if st = n.eng.ReadDiskWithin(slot, from, user, bound); st != engine.OK {
				n.asks[user] = ask{}
				return from, st, nil
			}
			ev, err := n.await(user)
			if err != nil || ev.Status != engine.OK && ev.Status != engine.Unfinished {
				return from, ev.Status, err
			}
			h.cold, h.read = ev.Status == engine.OK, ev.Read
		}
		h.views = views[:n.eng.ReadViews(h.read, from, to, 1<<20, views)]
	}
	if st != engine.OK && st != engine.NotCached {
		return from, st, nil
	}
	s.reads++
	if end, err = b.verify(h.bytes(), from, s.scratch); err == nil && end == from {
		err = fmt.Errorf("log %d: reading from %d to %d: no bytes", b.id, from, to)
	}
	if err != nil {
		return from, engine.OK, err
	}
	return end, engine.OK, n.release(h)
}

// checkFinds runs the checker: it finds what is lost, and nothing else.
func (s *rotSim) checkFinds() error {
	arena := s.arena(recoveryArenaBytes)
	report, err := recovery.Check(sim.NewRing(s.w, s.disk, arena, s.mood), arena, s.recoverOptions())
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	for i := range report.Logs {
		row := &report.Logs[i]
		b := s.books[row.ID-1]
		var found []span
		for _, p := range row.Problems {
			if p.From < p.To {
				found = append(found, span{p.From, p.To})
			}
			if p.Path == "" {
				return fmt.Errorf("CHECK: log %d: a problem without a file: %v", b.id, p)
			}
		}
		slices.SortFunc(found, func(a, b span) int { return int(a.from - b.from) })
		for k := 0; k+1 < len(found); {
			if found[k].to >= found[k+1].from {
				found[k].to = max(found[k].to, found[k+1].to)
				found = slices.Delete(found, k+1, k+2)
				continue
			}
			k++
		}
		if b.fate == open && !slices.Equal(found, s.lost[b]) {
			return fmt.Errorf("CHECK: log %d has lost %v, the checker finds %v: %v", b.id, s.lost[b], found, row.Problems)
		}
	}
	return nil
}

// leave ends what is lost of each log: its start passes it, or it is cut off. Until then it
// takes no appends, and from then on it does.
func (s *rotSim) leave() error {
	var cut []uint64
	for _, n := range s.nodes {
		for _, slot := range slices.Clone(n.logs) {
			b := n.slots[slot]
			if len(s.lost[b]) == 0 && !s.ends[b] {
				continue
			}
			if _, _, st := n.eng.Reserve(slot, headBytes); st != engine.LogCorrupt {
				return fmt.Errorf("log %d has lost %v and takes appends: status %d", b.id, s.lost[b], st)
			}
			if s.ends[b] || s.rng.IntN(2) == 0 {
				cut = append(cut, b.id)
				continue
			}
			to := s.lost[b][len(s.lost[b])-1].to
			if st := n.eng.TruncateBefore(slot, to, 0); st != engine.OK {
				return fmt.Errorf("log %d: moving its start to %d: status %d", b.id, to, st)
			}
			for tries := 0; n.eng.StartDurable(slot) < to; tries++ {
				if tries > 4000 {
					return fmt.Errorf("STALLED: the start of log %d does not become %d", b.id, to)
				}
				if _, _, st := n.eng.Reserve(slot, headBytes); st != engine.LogCorrupt {
					return fmt.Errorf("log %d takes appends before its start at %d is durable: status %d", b.id, to, st)
				}
				if err := s.round(); err != nil {
					return err
				}
			}
			b.startTo = to
			b.forget(to)
			delete(s.lost, b)
		}
	}
	if err := s.appendsAgain(); err != nil {
		return err
	}
	s.lives++
	s.end()
	arena := s.arena(recoveryArenaBytes)
	if len(cut) > 0 {
		if _, err := recovery.Repair(sim.NewRing(s.w, s.disk, arena, s.mood), arena, s.recoverOptions(), cut); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		for _, id := range cut {
			b := s.books[id-1]
			if delete(s.ends, b); len(s.lost[b]) == 0 {
				continue
			}
			from := s.lost[b][0].from
			for len(b.batches) > 0 && b.end() > from {
				b.batches = b.batches[:len(b.batches)-1]
			}
			if len(b.batches) == 0 {
				b.start = from // perhaps within a batch that is lost
			}
			b.seen, b.startTo = b.end(), b.start
			delete(s.lost, b)
		}
	}
	if err := s.checkFinds(); err != nil {
		return err
	}
	s.clean = false
	boot, _, err := s.attempt(0)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if err := s.serve(boot); err != nil {
		return err
	}
	return s.appendsAgain()
}

// appendsAgain appends to the logs that have lost nothing, or nothing any more.
func (s *rotSim) appendsAgain() error {
	for _, n := range s.nodes {
		for _, slot := range n.logs {
			b := n.slots[slot]
			if len(s.lost[b]) > 0 || s.ends[b] {
				continue
			}
			for tries, was := 0, len(b.batches); len(b.batches) == was; tries++ {
				if _, err := n.append(slot); err != nil {
					var holes [4]engine.Hole
					count := n.eng.Holes(slot, holes[:])
					return fmt.Errorf("%w; it begins at %d and has %d holes: %v", err, n.eng.StartDurable(slot), count, holes)
				}
				if tries > 4000 {
					return fmt.Errorf("STALLED: log %d takes no batch", b.id)
				}
				if err := s.round(); err != nil {
					return err
				}
			}
		}
	}
	return s.quiesce()
}
