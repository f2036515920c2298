package engine_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/sim"
)

// host is a machine with the storage of data shards and the control shard: a simulated disk
// and, while it is up, one engine for each shard.
//
// What was appended can be computed from log, offset and size, so that a read can be compared
// with it after any number of starts.
type host struct {
	t      testing.TB
	w      *sim.World
	disk   *sim.Disk
	o      engine.Options
	shards int
	boot   *engine.RecoveredState
	nodes  []*node
	arenas []*mem.Arena
	sizes  map[uint64]map[int64]batch // by log and base offset
}

type batch struct {
	bytes int
	count uint32
}

// node is one shard. It is the Attacher of its engine.
type node struct {
	host   *host
	ring   *sim.Ring
	engine *engine.Engine
	sleep  ioring.Instant
	events []engine.Event
	ids    map[engine.Slot]uint64
}

func newHost(t testing.TB, seed uint64) *host {
	h := &host{t: t, w: sim.NewWorld(seed), disk: sim.NewDisk(0), shards: 1, sizes: map[uint64]map[int64]batch{}}
	h.o = engine.Options{LogsMax: 16, SegmentBytes: 2 << 20, JournalBytes: 4 << 20, LogMemoryBytes: 8 << 20, BatchBytesMax: 256 << 10, InflightMax: 2, DirectBytes: -1, SpareBytes: -1, Files: 8, FilesMax: 64}
	t.Cleanup(h.free)
	return h
}

func (h *host) free() {
	for _, a := range h.arenas {
		a.Unmap()
	}
	h.arenas = nil
}

func (h *host) arena() *mem.Arena {
	a, err := mem.Map(48<<20, mem.Options{Poison: true})
	if err != nil {
		h.t.Fatal(err)
	}
	h.arenas = append(h.arenas, a)
	return a
}

func (h *host) recoverOptions() recovery.Options {
	return recovery.Options{Options: h.o, Shards: h.shards, Seed: [16]byte{7, 7, 7, 7},
		TimesChecked: func(batch []byte, _ int64) bool { return timesChecked(binary.BigEndian.Uint32(batch[57:])) }}
}

func (h *host) ring(a *mem.Arena) *sim.Ring {
	return sim.NewRing(h.w, h.disk, a, sim.RingOptions{Files: 128})
}

// recover opens the directory; start makes the shards.
func (h *host) recover() error {
	a := h.arena()
	var err error
	h.boot, err = recovery.Recover(h.ring(a), a, h.recoverOptions())
	return err
}

func (h *host) start() error {
	h.nodes = nil
	for i := range h.boot.Shards {
		a := h.arena()
		n := &node{host: h, ring: h.ring(a), ids: map[engine.Slot]uint64{}}
		var err error
		if n.engine, err = engine.New(n.ring, a, h.boot, i, n, h.o); err != nil {
			return err
		}
		a.Seal()
		for _, l := range h.boot.Shards[i].Logs {
			slot, ok := n.engine.Lookup(l.ID)
			if !ok {
				return fmt.Errorf("log %d was recovered and is not open", l.ID)
			}
			n.ids[slot] = l.ID
		}
		h.nodes = append(h.nodes, n)
	}
	return nil
}

func (h *host) open() error {
	if err := h.recover(); err != nil {
		return err
	}
	return h.start()
}

// Attachment is a text with the log's end.
func (n *node) Attachment(l engine.Slot, dst []byte) int {
	return copy(dst, fmt.Sprintf("log %d to %d", n.ids[l], n.engine.End(l)))
}

// turn is one round of a shard.
func (n *node) turn(until ioring.Instant) {
	var out [64]ioring.Completion
	n.ring.Wait(until)
	for {
		k := n.ring.Reap(out[:])
		for _, c := range out[:k] {
			n.engine.Complete(c, n.host.w.Now)
		}
		if k < len(out) {
			break
		}
	}
	n.sleep = n.engine.Step(n.host.w.Now)
	for {
		ev, ok := n.engine.Next()
		if !ok {
			return
		}
		if ev.Kind != engine.Durable {
			n.events = append(n.events, ev)
		}
	}
}

// until turns the shard until done, for a simulated minute at most.
func (n *node) until(what string, done func() bool) error {
	n.sleep = n.engine.Step(n.host.w.Now)
	for deadline := n.host.w.Now + 60e9; n.host.w.Now < deadline; {
		if done() {
			return nil
		}
		n.turn(min(n.sleep, n.host.w.Now+1e9))
	}
	return fmt.Errorf("a minute was not enough: %s", what)
}

func (n *node) event(kind engine.Kind, user uint32) (ev engine.Event, err error) {
	err = n.until("an event", func() bool {
		for i, x := range n.events {
			if x.Kind == kind && x.User == user {
				ev = x
				n.events = append(n.events[:i], n.events[i+1:]...)
				return true
			}
		}
		return false
	})
	return ev, err
}

// home is the shard that has a log.
func (h *host) home(id uint64) *node {
	if id == 1 {
		return h.nodes[0]
	}
	return h.nodes[1+int(id%uint64(h.shards))]
}

func (h *host) openLog(id uint64) error {
	n := h.home(id)
	if st := n.engine.OpenLog(id, uint32(id)); st != engine.OK {
		return fmt.Errorf("%s", name(st))
	}
	ev, err := n.event(engine.Opened, uint32(id))
	if err != nil {
		return err
	}
	if ev.Status != engine.OK {
		return fmt.Errorf("%s", name(ev.Status))
	}
	n.ids[ev.Slot] = id
	return nil
}

func (h *host) slot(id uint64) (*node, engine.Slot, error) {
	n := h.home(id)
	s, ok := n.engine.Lookup(id)
	if !ok {
		return n, 0, fmt.Errorf("log %d is not open", id)
	}
	return n, s, nil
}

// timesChecked says whether the timestamps of a batch of so many records are said to be
// checked: of every batch with an even number.
func timesChecked(count uint32) bool { return count%2 == 0 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill writes the batch that log has at base.
func fill(p []byte, log uint64, base int64, count uint32) {
	binary.BigEndian.PutUint64(p, uint64(base))
	binary.BigEndian.PutUint32(p[8:], uint32(len(p)-12))
	binary.BigEndian.PutUint32(p[57:], count)
	x := log<<40 ^ uint64(base)*0x9e3779b97f4a7c15
	for i := 61; i < len(p); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		p[i] = byte(x >> 56)
	}
}

// append appends one batch; the status says when it could not be.
func (h *host) append(id uint64, size int, count uint32) (engine.Status, error) {
	n, s, err := h.slot(id)
	if err != nil {
		return engine.Unknown, nil
	}
	for tries := 0; ; tries++ {
		dst, base, st := n.engine.Reserve(s, size)
		if st == engine.WaitRoom || st == engine.WaitMemory {
			if tries > 10_000 {
				return st, fmt.Errorf("log %d: %s does not end", id, name(st))
			}
			n.turn(min(n.sleep, h.w.Now+1e6))
			continue
		}
		if st != engine.OK {
			return st, nil
		}
		clear(dst)
		fill(dst, id, base, count)
		n.engine.Commit(engine.Meta{Count: count, MaxTime: 1000 + base, TimesChecked: timesChecked(count), CRC: crc32.Checksum(dst, castagnoli)})
		if h.sizes[id] == nil {
			h.sizes[id] = map[int64]batch{}
		}
		h.sizes[id][base] = batch{size, count}
		return engine.OK, nil
	}
}

// settle waits until everything appended is durable.
func (h *host) settle() error {
	for _, n := range h.nodes {
		err := n.until("durable", func() bool {
			for s := range n.ids {
				if _, ok := n.engine.Lookup(n.ids[s]); ok && n.engine.Durable(s) < n.engine.End(s) {
					return false
				}
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rest lets time pass without appends: what is durable is flushed.
func (h *host) rest(ns int64) {
	for _, n := range h.nodes {
		n.sleep = n.engine.Step(h.w.Now)
		for end := h.w.Now + ioring.Instant(ns); h.w.Now < end; {
			n.turn(min(max(n.sleep, h.w.Now+1), end))
		}
	}
}

// stop stops cleanly; then nothing may be in flight.
func (h *host) stop() error {
	for _, n := range h.nodes {
		n.engine.Shutdown()
		if err := n.until("a clean stop", n.engine.Idle); err != nil {
			return err
		}
		if n.ring.InFlight() > 0 {
			return fmt.Errorf("idle, with %d operations in flight", n.ring.InFlight())
		}
	}
	h.end()
	return nil
}

// end is the end of the process.
func (h *host) end() {
	h.w.Stop()
	h.nodes = nil
	h.free()
}

// readAll reads log id from its start to what is durable and compares it with
// what was appended. It says how far it came, how much came from disk, and why
// it ended early.
func (h *host) readAll(id uint64) (from, to int64, cold int, why string) {
	n, s, err := h.slot(id)
	if err != nil {
		return 0, 0, 0, err.Error()
	}
	return h.readFrom(id, n.engine.Start(s))
}

// readFrom is readAll from an offset on.
func (h *host) readFrom(id uint64, from int64) (_, to int64, cold int, why string) {
	n, s, err := h.slot(id)
	if err != nil {
		return 0, 0, 0, err.Error()
	}
	e := n.engine
	views := make([]engine.View, 8)
	for to = from; to < e.Durable(s); {
		k, st := e.Read(s, to, e.Durable(s), 1<<20, views)
		read, isCold := uint32(0), false
		if st == engine.NotCached {
			st = e.ReadDisk(s, to, 77)
			if st == engine.OK {
				ev, err := n.event(engine.ReadDone, 77)
				if err != nil {
					return from, to, cold, err.Error()
				}
				if st = ev.Status; st == engine.OK {
					read, isCold = ev.Read, true
					k = e.ReadViews(read, to, e.Durable(s), 1<<20, views)
					cold++
				}
			}
		}
		if st != engine.OK {
			return from, to, cold, name(st)
		}
		var p []byte
		for _, v := range views[:k] {
			p = append(p, v.Bytes...)
			e.Unpin(v.Pin)
		}
		if isCold {
			e.ReadEnd(read)
		}
		was := to
		for len(p) > 0 {
			base := int64(binary.BigEndian.Uint64(p))
			b, ok := h.sizes[id][base]
			if !ok || base > to || len(p) < b.bytes {
				return from, to, cold, fmt.Sprintf("nothing was appended at %d, or not this", base)
			}
			want := make([]byte, b.bytes)
			fill(want, id, base, b.count)
			if !bytes.Equal(want, p[:b.bytes]) {
				return from, to, cold, fmt.Sprintf("the batch at %d is not what was appended", base)
			}
			p, to = p[b.bytes:], base+int64(b.count)
		}
		if to == was {
			return from, to, cold, "a read gave nothing"
		}
	}
	return from, to, cold, ""
}

// check runs the checker on the directory as it is.
func (h *host) check() (*recovery.CheckReport, error) {
	a := h.arena()
	o, through, of := h.recoverOptions(), int64(0), int64(0)
	o.Progress = func(done, total int64) {
		if done < through || done > total {
			h.t.Errorf("the check is through with %d of %d bytes after %d", done, total, through)
		}
		through, of = done, total
	}
	report, err := recovery.Check(h.ring(a), a, o)
	if err == nil && through != of {
		h.t.Errorf("the check ends at %d of %d bytes", through, of)
	}
	return report, err
}

var statusNames = [...]string{"OK", "WaitMemory", "WaitRoom", "NoSpace", "StorageFailed", "Rot", "OutOfRange", "Empty", "Cold", "Unknown", "TooLarge", "Full", "Corrupt", "Unfinished"}

func name(st engine.Status) string { return statusNames[st] }
