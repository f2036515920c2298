package observe

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

// live is `tailbound profile` in a terminal: one page for all shards and one for
// each, refreshed every interval. It reconnects when the broker is restarted.
type live struct {
	dir      string
	interval time.Duration
	client   *client // nil while not connected

	got, before *Profile // the last two answers, or nil
	failed      error    // why the last question was not answered
	page        int      // 0: all shards; i: shard i-1
	total       bool     // since the start instead of the interval
	paused      bool
	width       int
	height      int
}

// profileTold is the answer to a question, or the error; without a client the
// connection is lost.
type profileTold struct {
	client *client
	got    *Profile
	err    error
}

// askAgain is due when the interval is over.
type askAgain struct{}

var (
	styleTitle = lipgloss.NewStyle().Bold(true)
	styleFaint = lipgloss.NewStyle().Faint(true)
	styleWarn  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	styleBad   = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	stylePage  = lipgloss.NewStyle().Reverse(true)
)

// watchProfile shows the live view until q is pressed.
func watchProfile(dir string, interval time.Duration) error {
	first, err := dial(dir) // a first failure is printed, not shown on a screen that is gone at once
	if err != nil {
		return err
	}
	m, err := tea.NewProgram(live{dir: dir, interval: interval, client: first}).Run()
	if w, ok := m.(live); ok && w.client != nil {
		w.client.close()
	}
	return err
}

func (w live) Init() tea.Cmd { return w.ask }

// ask runs on a goroutine beside the screen, one at a time.
func (w live) ask() tea.Msg {
	c := w.client
	if c == nil {
		var err error
		if c, err = dial(w.dir); err != nil {
			return profileTold{err: err}
		}
	}
	got, err := c.next()
	if err != nil {
		c.close()
		return profileTold{err: err}
	}
	return profileTold{c, got, nil}
}

func (w live) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		w.width, w.height = m.Width, m.Height
	case profileTold:
		w.client, w.failed = m.client, m.err
		if m.err == nil && !w.paused {
			w.before, w.got = w.got, m.got
			w.page = min(w.page, len(w.got.Shards))
		}
		return w, tea.Tick(w.interval, func(time.Time) tea.Msg { return askAgain{} })
	case askAgain:
		return w, w.ask
	case tea.KeyPressMsg:
		return w.key(m.String())
	}
	return w, nil
}

func (w live) key(k string) (tea.Model, tea.Cmd) {
	pages := 1
	if w.got != nil {
		pages += len(w.got.Shards)
	}
	switch k {
	case "q", "esc", "ctrl+c":
		return w, tea.Quit
	case "right", "l", "tab":
		w.page = (w.page + 1) % pages
	case "left", "h", "shift+tab":
		w.page = (w.page + pages - 1) % pages
	case "a":
		w.page = 0
	case "t":
		w.total = !w.total
	case "p", "space":
		w.paused = !w.paused
	case "+":
		w.interval = min(w.interval*2, time.Minute)
	case "-":
		w.interval = max(w.interval/2, 250*time.Millisecond)
	default:
		if len(k) == 1 && k[0] >= '0' && k[0] <= '9' && int(k[0]-'0')+1 < pages {
			w.page = int(k[0]-'0') + 1
		}
	}
	return w, nil
}

func (w live) View() tea.View {
	lines := strings.Split(w.text(), "\n")
	if w.height > 0 && len(lines) > w.height {
		lines = append(lines[:w.height-1], styleFaint.Render("... make the window taller for the rest"))
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	v.WindowTitle = "tailbound profile"
	return v
}

func (w live) text() string {
	if w.got == nil {
		if w.failed != nil {
			return styleBad.Render(w.failed.Error())
		}
		return "asking the broker..."
	}
	p := w.got
	over := fmt.Sprintf("the last %s", time.Duration(p.SinceSeconds*1e9).Round(100*time.Millisecond))
	if w.total {
		over = "since the start"
	}
	if w.paused {
		over += ", PAUSED"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  process %d, up %s, %s\n", styleTitle.Render("tailbound "+p.Version), p.PID, time.Duration(p.UptimeSeconds*1e9).Round(time.Second), over)
	g := p.Process
	fmt.Fprintf(&b, "%s resident, %s of Go's heap live, %d collections, pauses p99 %s max %s%s\n",
		mib(g.RSSBytes), mib(g.HeapLiveBytes), g.GCCycles, term.ShortNS(g.GCPauses.P99NS), term.ShortNS(g.GCPauses.MaxNS), w.allocRate())
	pages := []string{"all"}
	for _, s := range p.Shards {
		pages = append(pages, fmt.Sprintf("%d", s.Shard))
	}
	pages[w.page] = stylePage.Render(" " + pages[w.page] + " ")
	fmt.Fprintf(&b, "shard: %s\n\n", strings.Join(pages, "  "))
	if w.failed != nil {
		fmt.Fprintf(&b, "%s\n\n", styleBad.Render(w.failed.Error()))
	}
	if w.page == 0 {
		b.WriteString(w.overview())
	} else {
		b.WriteString(w.shard(w.page - 1))
	}
	b.WriteString("\n" + styleFaint.Render("q quit   left/right or 0-9 shard   a all   t total/interval   p pause   +/- interval "+w.interval.String()))
	return b.String()
}

func (w live) report(s ShardProfile) metrics.Report {
	if w.total {
		return s.Total
	}
	return s.Since
}

// rate is the growth of a shard's counter per second between the last two answers;
// false where there are not two of the same process.
func (w live) rate(shard int, counter string) (float64, bool) {
	if w.before == nil || w.before.PID != w.got.PID || shard >= len(w.before.Shards) {
		return 0, false
	}
	took := w.got.At.Sub(w.before.At).Seconds()
	if took <= 0 {
		return 0, false
	}
	return float64(w.got.Shards[shard].Counters[counter]-w.before.Shards[shard].Counters[counter]) / took, true
}

func (w live) rateText(shard int, counter string) string {
	r, ok := w.rate(shard, counter)
	if !ok {
		return ""
	}
	return term.ShortNumber(r)
}

func (w live) allocRate() string {
	if w.before == nil || w.before.PID != w.got.PID {
		return ""
	}
	a, b := w.before.Process, w.got.Process
	n := float64(b.HeapAllocsObjects-a.HeapAllocsObjects) - float64(b.ProfileAllocsObjects-a.ProfileAllocsObjects)
	return fmt.Sprintf(", %s objects/s", term.ShortNumber(max(0, n)/w.got.At.Sub(w.before.At).Seconds()))
}

// overview has a row for each shard.
func (w live) overview() string {
	t := plainTable("shard", "records/s", "in/s", "out/s", "produce p50", "p99", "p99.9", "max", "x", "fetch p50", "p99.9", "turn p99.9", "max", "log memory", "journal", "sleeps/s")
	for i, s := range w.got.Shards {
		r := w.report(s)
		produce, fetch := r.Kinds[metrics.Produce].Total, r.Kinds[metrics.Fetch].Total
		name := fmt.Sprintf("%d", s.Shard)
		if s.Shard == 0 {
			name = "0 control"
		}
		if s.Late {
			name = styleBad.Render(name + " LATE")
		}
		t.Row(name, w.rateText(i, "records"), w.rateText(i, "bytes_in"), w.rateText(i, "bytes_out"),
			quantile(produce, produce.P50NS), quantile(produce, produce.P99NS), quantile(produce, produce.P999NS), quantile(produce, produce.MaxNS), tail(produce),
			quantile(fetch, fetch.P50NS), quantile(fetch, fetch.P999NS), quantile(r.Turn, r.Turn.P999NS), quantile(r.Turn, r.Turn.MaxNS),
			share(s.Levels, "log memory slabs"), share(s.Levels, "journal blocks"), w.rateText(i, "sleeps"))
	}
	return t.Render() + "\n" + styleFaint.Render("x: p99.9 over p50 of produce, the whole way from received to sent") + "\n"
}

// shard is the page of one shard: stages, rates and pools.
func (w live) shard(i int) string {
	s := w.got.Shards[i]
	r := w.report(s)
	var b strings.Builder
	role := "data shard"
	if s.Shard == 0 {
		role = "control shard"
	}
	fmt.Fprintf(&b, "%s %d, node %d, %s\n", role, s.Shard, s.Node, s.Address)
	if s.Late {
		b.WriteString(styleBad.Render("it took no turn in time: these are older figures") + "\n")
	}
	t := plainTable("", "count", "p50", "p90", "p99", "p99.9", "max", "x")
	row := func(name string, s metrics.Summary) {
		if s.Count > 0 {
			t.Row(name, fmt.Sprint(s.Count), term.ShortNS(s.P50NS), term.ShortNS(s.P90NS), term.ShortNS(s.P99NS), term.ShortNS(s.P999NS), term.ShortNS(s.MaxNS), tail(s))
		}
	}
	for _, k := range r.Kinds {
		row(styleTitle.Render(k.Kind), k.Total)
		for _, stage := range k.Stages {
			row(stage.Stage, stage.Took)
		}
	}
	row(styleTitle.Render("turn"), r.Turn)
	b.WriteString(t.Render() + "\n\n")
	rates := plainTable("per second", "", " ", "  ", "   ", "    ", "     ", "      ")
	var cells []string
	for _, c := range []string{"turns", "completions", "sleeps", "spin_hits", "wakes", "requests", "records", "batches", "frames", "turns_in_flight1", "turns_in_flight2", "runs", "sends", "mail_in", "mail_out", "fetch_waits", "produce_waits", "cold_reads"} {
		if text := w.rateText(i, c); text != "" && text != "0" {
			cells = append(cells, strings.ReplaceAll(c, "_", " "), text)
		}
	}
	for len(cells) > 0 {
		n := min(8, len(cells))
		rates.Row(cells[:n]...)
		cells = cells[n:]
	}
	b.WriteString(rates.Render() + "\n\n")
	pools := plainTable("pool", "used", "peak", "of", "")
	for _, l := range s.Levels {
		if l.Used > 0 || l.Peak > 0 {
			pools.Row(l.Name, fmt.Sprint(l.Used), orNothing(l.Peak), fmt.Sprint(l.Max), bar(l, 20))
		}
	}
	b.WriteString(pools.Render() + "\n")
	return b.String()
}

// plainTable is a table without lines. The first column is aligned to the left.
func plainTable(head ...string) *table.Table {
	return table.New().Border(lipgloss.HiddenBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderHeader(false).
		StyleFunc(func(row, column int) lipgloss.Style {
			style := lipgloss.NewStyle().PaddingRight(1)
			if row == table.HeaderRow {
				style = style.Faint(true)
			}
			if column > 0 {
				style = style.Align(lipgloss.Right)
			}
			return style
		}).Headers(head...)
}

func quantile(s metrics.Summary, ns int64) string {
	if s.Count == 0 {
		return ""
	}
	return term.ShortNS(ns)
}

// tail is p99.9 over p50, coloured where it is large.
func tail(s metrics.Summary) string {
	if s.Count < 1000 || s.P50NS == 0 {
		return "" // too few to have one
	}
	x := float64(s.P999NS) / float64(s.P50NS)
	text := term.ShortNumber(x)
	switch {
	case x >= 100:
		return styleBad.Render(text)
	case x >= 10:
		return styleWarn.Render(text)
	}
	return text
}

func share(levels []metrics.Gauge, name string) string {
	for _, l := range levels {
		if l.Name == name && l.Max > 0 {
			return fmt.Sprintf("%d%%", l.Used*100/l.Max)
		}
	}
	return ""
}

// bar shows how much of a pool is used, and its peak.
func bar(l metrics.Gauge, width int) string {
	if l.Max <= 0 {
		return ""
	}
	used, peak := int(l.Used*int64(width)/l.Max), int(max(l.Used, l.Peak)*int64(width)/l.Max)
	text := strings.Repeat("█", used) + strings.Repeat("▒", peak-used) + strings.Repeat("·", width-peak)
	if l.Used*10 >= l.Max*9 {
		return styleWarn.Render(text)
	}
	return text
}

func orNothing(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
