package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

type checkpointHeader struct{}
type logRecord struct{}
type Engine struct{}
type Stats struct{}
type CheckReport struct{}

func Recover(r ioring.Ring, a *mem.Arena, o RecoverOptions) (*Boot, error) { return nil, nil }
func New(r ioring.Ring, a *mem.Arena, b *Boot, shard int, at Attacher, o Options) (*Engine, error) {
	return nil, nil
}
func Check(r ioring.Ring, a *mem.Arena, o RecoverOptions) (*CheckReport, error) { return nil, nil }

func (e *Engine) Complete(c ioring.Completion, now ioring.Instant) {}
func (e *Engine) Step(now ioring.Instant) ioring.Instant           { return 0 }
func (e *Engine) Next() (Event, bool)                              { return Event{}, false }
func (e *Engine) Progress() uint64                                 { return 0 }
func (e *Engine) Reserve(l Slot, n int) ([]byte, int64, Status)    { return nil, 0, 0 }
func (e *Engine) Commit(m Meta)                                    {}
func (e *Engine) Abort()                                           {}
func (e *Engine) Start(l Slot) int64                               { return 0 }
func (e *Engine) End(l Slot) int64                                 { return 0 }
func (e *Engine) Durable(l Slot) int64                             { return 0 }
func (e *Engine) MaxTime(l Slot) (ts, base int64)                  { return 0, 0 }
func (e *Engine) EpochAt(l Slot, ep int32) (int32, int64)          { return 0, 0 }
func (e *Engine) EpochOf(l Slot, off int64) int32                  { return 0 }
func (e *Engine) TruncateBefore(l Slot, start int64, user uint32)  {}
func (e *Engine) Read(l Slot, from, to int64, max int, out []View) (int, Status) {
	return 0, 0
}
func (e *Engine) Unpin(pin uint32)                                               {}
func (e *Engine) ReadCold(l Slot, from int64, user uint32) Status                { return 0 }
func (e *Engine) ReadViews(read uint32, from, to int64, max int, out []View) int { return 0 }
func (e *Engine) ReadEnd(read uint32)                                            {}
func (e *Engine) SeekTime(l Slot, ts int64) (int64, bool)                        { return 0, false }
func (e *Engine) Lookup(id uint64) (Slot, bool)                                  { return 0, false }
func (e *Engine) OpenLog(id uint64, user uint32) Status                          { return 0 }
func (e *Engine) DeleteLog(l Slot, user uint32) Status                           { return 0 }
func (e *Engine) Shutdown()                                                      {}
func (e *Engine) Idle() bool                                                     { return true }
func (e *Engine) FailedErrno() int                                               { return 0 }
func (e *Engine) Stats() *Stats                                                  { return nil }
