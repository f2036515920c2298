package observe

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
// spent; a long and a short window together decide whether there is an alert.

// sloWindows are the windows whose burn rates are reported.
var sloWindows = []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}

// sloAlerts is table 5-8 of the Workbook: an alert is 2 % of the budget in an hour,
// 5 % in six, 10 % in a day or in three.
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

// budget is the error budget of one topic: what its shards counted, by minute.
// Server.mu guards it.
type budget struct {
	limitNS, targetPPM int64
	total, missed      uint64 // since the objective was set
	since              time.Time
	minute             int64 // the present one, in minutes since 1970
	minutes            [budgetMinutes]struct{ total, missed uint32 }
	seen               map[int][2]uint64 // by shard: total and missed as it last counted them
}

// forward advances to the minute of now and empties those between.
func (b *budget) forward(now time.Time) {
	m := now.Unix() / 60
	for ; b.minute < m; b.minute++ {
		if m-b.minute > budgetMinutes {
			b.minute = m - budgetMinutes
		}
		b.minutes[(b.minute+1)%budgetMinutes] = struct{ total, missed uint32 }{}
	}
}

// take adds what a shard has counted since it last told.
func (b *budget) take(shard int, objective *metrics.Objective, now time.Time) {
	if b.limitNS != objective.LimitNS || b.targetPPM != objective.TargetPPM { // another objective, or the first
		*b = budget{limitNS: objective.LimitNS, targetPPM: objective.TargetPPM, since: now, minute: now.Unix() / 60, seen: map[int][2]uint64{}}
	}
	b.forward(now)
	before := b.seen[shard]
	if objective.Total < before[0] {
		before = [2]uint64{} // the shard counts anew
	}
	b.seen[shard] = [2]uint64{objective.Total, objective.Missed}
	total, missed := objective.Total-before[0], objective.Missed-before[1]
	b.total += total
	b.missed += missed
	x := &b.minutes[b.minute%budgetMinutes]
	x.total += uint32(total)
	x.missed += uint32(missed)
}

// within sums the last minutes, the present one included.
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

// SLOProfile is what `profile watch slo` shows. The JSON names are kept from version
// to version.
type SLOProfile struct {
	Version string     `json:"version"`
	PID     int        `json:"pid"`
	At      time.Time  `json:"at"`
	Topics  []SLOTopic `json:"topics"`
}

// SLOTopic is one topic with an objective.
type SLOTopic struct {
	Topic        string      `json:"topic"`
	LimitNS      int64       `json:"limit_ns"`
	Target       float64     `json:"target"` // share of requests
	Since        time.Time   `json:"since"`
	Requests     uint64      `json:"requests"`
	Missed       uint64      `json:"missed"`
	Windows      []SLOWindow `json:"windows"`
	BudgetLeft   float64     `json:"budget_left"`              // share, of the requests since then; below 0 where more missed it than may
	BudgetLastsS float64     `json:"budget_lasts_s,omitempty"` // the budget of 30 days, at the burn rate of the last hour
	Alert        string      `json:"alert"`                    // none, ticket or page
}

// SLOWindow is the burn rate over one window.
type SLOWindow struct {
	Seconds  int64   `json:"seconds"`
	Covered  bool    `json:"covered"` // the objective is as old as the window
	Requests uint64  `json:"requests"`
	Missed   uint64  `json:"missed"`
	Burn     float64 `json:"burn_rate"`
}

// topic is the report on a budget.
func (b *budget) topic(name string, now time.Time) SLOTopic {
	b.forward(now)
	topic := SLOTopic{Topic: name, LimitNS: b.limitNS, Target: float64(b.targetPPM) / 1e6, Since: b.since, Requests: b.total, Missed: b.missed, Alert: "none"}
	burn := map[time.Duration]float64{}
	for _, length := range sloWindows {
		total, missed := b.within(length)
		window := SLOWindow{Seconds: int64(length / time.Second), Covered: now.Sub(b.since) >= length, Requests: total, Missed: missed}
		if total > 0 {
			window.Burn = float64(missed) / float64(total) / (1 - topic.Target)
		}
		burn[length] = window.Burn
		topic.Windows = append(topic.Windows, window)
	}
	topic.BudgetLeft = 1
	if b.total > 0 {
		topic.BudgetLeft = 1 - float64(b.missed)/float64(b.total)/(1-topic.Target)
	}
	if rate := burn[time.Hour]; rate > 0 {
		topic.BudgetLastsS = budgetDays * 86400 / rate
	}
	for i := len(sloAlerts) - 1; i >= 0; i-- {
		if a := sloAlerts[i]; burn[a.long] >= a.burn && burn[a.short] >= a.burn {
			topic.Alert = "ticket"
			if a.page {
				topic.Alert = "page"
			}
		}
	}
	return topic
}

// budgeted adds an interval of a shard to the budgets. A budget that no shard counts
// for any more is dropped.
func (p *Server) budgeted(shard int, interval *metrics.Interval, now time.Time) {
	for i := range interval.Objectives[:interval.ObjectivesN] {
		objective := &interval.Objectives[i]
		b := p.budgets[objective.Topic()]
		if b == nil {
			b = new(budget)
			p.budgets[objective.Topic()] = b
		}
		b.take(shard, objective, now)
	}
	for name, budget := range p.budgets {
		if _, had := budget.seen[shard]; had && !slices.ContainsFunc(interval.Objectives[:interval.ObjectivesN], func(objective metrics.Objective) bool { return objective.Topic() == name }) {
			if delete(budget.seen, shard); len(budget.seen) == 0 {
				delete(p.budgets, name)
			}
		}
	}
}

// slo is the report on all budgets. The caller holds mu.
func (p *Server) slo() *SLOProfile {
	if p.broker != nil {
		p.takeFlights(true)
	}
	now := time.Now()
	slo := &SLOProfile{Version: p.version, PID: os.Getpid(), At: now, Topics: []SLOTopic{}}
	for name, budget := range p.budgets {
		slo.Topics = append(slo.Topics, budget.topic(name, now))
	}
	slices.SortFunc(slo.Topics, func(a, b SLOTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return slo
}
