package main

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/tailbound/tailbound/metrics"
)

// Error budgets, as the Site Reliability Workbook has them (chapter 5, Alerting on
// SLOs): a topic's objective leaves a share of its requests that may miss it, the
// budget of 30 days. The burn rate says how many times as fast as that it is being
// spent; two windows at a time say whether somebody is to be woken.

// sloWindows are the windows whose burn rates are told.
var sloWindows = []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}

// sloAlerts are its table 5-8: 2 % of the budget in an hour, 5 % in six; 10 % in
// a day, or in three.
var sloAlerts = []struct {
	long, short time.Duration
	burn        float64
	page        bool
}{
	{time.Hour, 5 * time.Minute, 14.4, true},
	{6 * time.Hour, 30 * time.Minute, 6, true},
	{24 * time.Hour, 2 * time.Hour, 3, false},
	{72 * time.Hour, 6 * time.Hour, 1, false},
}

const (
	budgetDays    = 30
	budgetMinutes = 72 * 60 // the longest window
)

// budget is one topic's, in minutes of what its shards counted. It belongs to
// whoever holds the profiler's lock.
type budget struct {
	limitNS, targetPPM int64
	total, missed      uint64 // since it was promised
	since              time.Time
	minute             int64 // the one under way, since 1970
	minutes            [budgetMinutes]struct{ total, missed uint32 }
	seen               map[int][2]uint64 // by shard: what it had counted
}

// forward begins the minute of now.
func (b *budget) forward(now time.Time) {
	m := now.Unix() / 60
	for ; b.minute < m; b.minute++ {
		if m-b.minute > budgetMinutes {
			b.minute = m - budgetMinutes
		}
		b.minutes[(b.minute+1)%budgetMinutes] = struct{ total, missed uint32 }{}
	}
}

// take adds what a shard has counted.
func (b *budget) take(shard int, o *metrics.Objective, now time.Time) {
	if b.limitNS != o.LimitNS || b.targetPPM != o.TargetPPM { // another promise, or the first
		*b = budget{limitNS: o.LimitNS, targetPPM: o.TargetPPM, since: now, minute: now.Unix() / 60, seen: map[int][2]uint64{}}
	}
	b.forward(now)
	before := b.seen[shard]
	if o.Total < before[0] {
		before = [2]uint64{} // promised anew
	}
	b.seen[shard] = [2]uint64{o.Total, o.Missed}
	total, missed := o.Total-before[0], o.Missed-before[1]
	b.total += total
	b.missed += missed
	x := &b.minutes[b.minute%budgetMinutes]
	x.total += uint32(total)
	x.missed += uint32(missed)
}

// within sums the last minutes of a window, the one under way included.
func (b *budget) within(window time.Duration) (total, missed uint64) {
	for i := range int64(window / time.Minute) {
		if b.minute-i < 0 {
			break
		}
		x := b.minutes[(b.minute-i)%budgetMinutes]
		total += uint64(x.total)
		missed += uint64(x.missed)
	}
	return total, missed
}

// sloProfile is what `profile watch slo` shows. The names stay.
type sloProfile struct {
	Version string     `json:"version"`
	PID     int        `json:"pid"`
	At      time.Time  `json:"at"`
	Topics  []sloTopic `json:"topics"`
}

// sloTopic is one topic with an objective.
type sloTopic struct {
	Topic        string      `json:"topic"`
	LimitNS      int64       `json:"limit_ns"`
	Target       float64     `json:"target"` // share of requests
	Since        time.Time   `json:"since"`
	Requests     uint64      `json:"requests"`
	Missed       uint64      `json:"missed"`
	Windows      []sloWindow `json:"windows"`
	BudgetLeft   float64     `json:"budget_left"`              // of the requests since then, below 0 where more missed it than may
	BudgetLastsS float64     `json:"budget_lasts_s,omitempty"` // that of 30 days, at the speed of the last hour
	Alert        string      `json:"alert"`                    // none, ticket or page
}

// sloWindow is one window of it.
type sloWindow struct {
	Seconds  int64   `json:"seconds"`
	Covered  bool    `json:"covered"` // the objective is that old
	Requests uint64  `json:"requests"`
	Missed   uint64  `json:"missed"`
	Burn     float64 `json:"burn_rate"`
}

// topic says how a topic's budget burns.
func (b *budget) topic(name string, now time.Time) sloTopic {
	b.forward(now)
	t := sloTopic{Topic: name, LimitNS: b.limitNS, Target: float64(b.targetPPM) / 1e6, Since: b.since, Requests: b.total, Missed: b.missed, Alert: "none"}
	burn := map[time.Duration]float64{}
	for _, w := range sloWindows {
		total, missed := b.within(w)
		x := sloWindow{Seconds: int64(w / time.Second), Covered: now.Sub(b.since) >= w, Requests: total, Missed: missed}
		if total > 0 {
			x.Burn = float64(missed) / float64(total) / (1 - t.Target)
		}
		burn[w] = x.Burn
		t.Windows = append(t.Windows, x)
	}
	t.BudgetLeft = 1
	if b.total > 0 {
		t.BudgetLeft = 1 - float64(b.missed)/float64(b.total)/(1-t.Target)
	}
	if rate := burn[time.Hour]; rate > 0 {
		t.BudgetLastsS = budgetDays * 86400 / rate
	}
	for i := len(sloAlerts) - 1; i >= 0; i-- {
		if a := sloAlerts[i]; burn[a.long] >= a.burn && burn[a.short] >= a.burn {
			t.Alert = "ticket"
			if a.page {
				t.Alert = "page"
			}
		}
	}
	return t
}

// budgeted takes what a shard's interval says of objectives. Those that no shard
// tells of any more are forgotten.
func (p *profiler) budgeted(shard int, v *metrics.Interval, now time.Time) {
	for i := range v.Objectives[:v.ObjectivesN] {
		o := &v.Objectives[i]
		b := p.budgets[o.Topic()]
		if b == nil {
			b = new(budget)
			p.budgets[o.Topic()] = b
		}
		b.take(shard, o, now)
	}
	for name, b := range p.budgets {
		if _, had := b.seen[shard]; had && !slices.ContainsFunc(v.Objectives[:v.ObjectivesN], func(o metrics.Objective) bool { return o.Topic() == name }) {
			if delete(b.seen, shard); len(b.seen) == 0 {
				delete(p.budgets, name)
			}
		}
	}
}

// slo is what there is to say of all of them. The caller holds the lock.
func (p *profiler) slo() *sloProfile {
	if p.broker != nil {
		p.takeFlights(true)
	}
	now := time.Now()
	s := &sloProfile{Version: p.version, PID: os.Getpid(), At: now, Topics: []sloTopic{}}
	for name, b := range p.budgets {
		s.Topics = append(s.Topics, b.topic(name, now))
	}
	slices.SortFunc(s.Topics, func(a, b sloTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return s
}
