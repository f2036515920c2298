package observe

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
	"github.com/tailbound/tailbound/metrics"
)

func objective(limitNS, targetPPM int64, total, missed uint64) *metrics.Objective {
	return &metrics.Objective{LimitNS: limitNS, TargetPPM: targetPPM, Total: total, Missed: missed}
}

func TestBudget(t *testing.T) {
	var b budget
	now := time.Unix(1e9, 0)
	total, missed := uint64(0), uint64(0)
	spend := func(minutes int, perMinute, miss uint64) {
		for range minutes {
			now = now.Add(time.Minute)
			total, missed = total+perMinute, missed+miss
			b.take(1, objective(5e6, 999000, total, missed), now)
		}
	}
	burn := func(w time.Duration) float64 {
		s := b.topic("t", now)
		for i := range s.Windows {
			if s.Windows[i].Seconds == int64(w/time.Second) {
				return s.Windows[i].Burn
			}
		}
		t.Fatalf("no window of %s", w)
		return 0
	}
	near := func(got, want float64) bool { return got > want*0.97 && got < want*1.03 }
	alert := func(want string) {
		t.Helper()
		if s := b.topic("t", now); s.Alert != want {
			t.Errorf("%s: it is %s that is wanted: %+v", now, want, s)
		}
	}
	spend(3*24*60, 1000, 0)
	alert("none")
	spend(60, 1000, 15) // 15 times the budget of 0.1 %
	if !near(burn(5*time.Minute), 15) || !near(burn(time.Hour), 15) || !near(burn(2*time.Hour), 7.5) || !near(burn(6*time.Hour), 2.5) || !near(burn(72*time.Hour), 15.0/72) {
		t.Errorf("burn rates: %+v", b.topic("t", now).Windows)
	}
	alert("page")
	if s := b.topic("t", now); !near(s.BudgetLastsS, budgetDays*86400/15) || s.Requests != total || s.Missed != missed || !near(s.BudgetLeft, 1-float64(missed)/float64(total)/0.001) {
		t.Errorf("%+v; %d requests, %d missed", s, total, missed)
	}
	spend(10, 1000, 0)
	alert("none") // the short window is over it
	spend(10*60, 1000, 0)
	spend(10*60, 1000, 4)
	alert("none") // 6 hours of 4 are below 6, and a day's is below 3
	spend(14*60, 1000, 4)
	alert("ticket")
	b.take(2, objective(5e6, 999000, 7, 7), now) // another shard
	if b.total != total+7 {
		t.Errorf("%d requests of two shards, want %d", b.total, total+7)
	}
	b.take(2, objective(5e6, 999000, 3, 0), now) // which forgot what it had counted
	if b.total != total+10 || b.missed != missed+7 {
		t.Errorf("%d and %d", b.total, b.missed)
	}
	b.take(1, objective(9e6, 999000, 1, 0), now) // another promise
	if b.total != 1 || b.missed != 0 || burn(72*time.Hour) != 0 {
		t.Errorf("what was counted of another promise is still there: %+v", b.topic("t", now))
	}
	now = now.Add(10 * 24 * time.Hour)
	if s := b.topic("t", now); s.Windows[len(s.Windows)-1].Requests != 0 {
		t.Error("what is long ago is in a window")
	}
}

func TestWatchSLO(t *testing.T) {
	b := program.Start(t)
	topic := func(words ...string) {
		program.Must(t, "", append(append([]string{"topic"}, words...), "--brokers", b.Addr)...)
	}
	if text := program.Must(t, "", "profile", "watch", "SLO", "--once", "--data-dir", b.Dir); !strings.Contains(text, "no topic has an objective") {
		t.Errorf("%s", text)
	}
	topic("create", "strict", "-c", "latency.slo.ms=0")
	topic("create", "easy", "-c", "latency.slo.ms=3600000", "-c", "latency.slo.target=0.9")
	topic("create", "none")
	for _, name := range []string{"strict", "easy", "none"} {
		program.Must(t, "a\n", "produce", name, "--brokers", b.Addr)
	}
	slo := func() (s SLOProfile) {
		if err := json.Unmarshal([]byte(program.Must(t, "", "profile", "watch", "slo", "--once", "--json", "--data-dir", b.Dir)), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := slo()
	if len(s.Topics) != 2 || s.Topics[0].Topic != "easy" || s.Topics[1].Topic != "strict" {
		t.Fatalf("%+v", s)
	}
	if e := s.Topics[0]; e.Requests != 1 || e.Missed != 0 || e.Target != 0.9 || e.LimitNS != 3600e9 || e.Alert != "none" || e.BudgetLeft != 1 {
		t.Errorf("%+v", e)
	}
	if e := s.Topics[1]; e.Requests != 1 || e.Missed != 1 || e.Target != 0.999 || e.Alert != "page" || e.Windows[0].Burn < 999 || e.Windows[0].Burn > 1001 {
		t.Errorf("%+v", e)
	}
	text := program.Must(t, "", "profile", "watch", "slo", "--once", "--data-dir", b.Dir)
	for _, w := range []string{"99.9% within 0 ns", "90% within", "PAGE", "5m", "3d"} {
		if !strings.Contains(text, w) {
			t.Errorf("nothing of %q in:\n%s", w, text)
		}
	}
	topic("alter", "strict", "-s", "latency.slo.ms=-1")
	topic("delete", "easy")
	program.Await(t, func() bool { return len(slo().Topics) == 0 })
	program.Refused(t, []string{"profile", "watch", "slow", "--data-dir", b.Dir}, "slo")
	program.Refused(t, []string{"profile", "watch", "--once", "--data-dir", b.Dir}, "tailbound profile")
}
