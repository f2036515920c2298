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
	model, err := tea.NewProgram(live{dir: dir, interval: interval, client: first}).Run()
	if view, ok := model.(live); ok && view.client != nil {
		view.client.close()
	}
	return err
}

func (w live) Init() tea.Cmd { return w.ask }

// ask runs on a goroutine beside the screen, one at a time.
func (w live) ask() tea.Msg {
	conn := w.client
	if conn == nil {
		var err error
		if conn, err = dial(w.dir); err != nil {
			return profileTold{err: err}
		}
	}
	got, err := conn.next()
	if err != nil {
		conn.close()
		return profileTold{err: err}
	}
	return profileTold{conn, got, nil}
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
	view := tea.NewView(strings.Join(lines, "\n"))
	view.AltScreen = true
	view.WindowTitle = "tailbound profile"
	return view
}

func (w live) text() string {
	if w.got == nil {
		if w.failed != nil {
			return styleBad.Render(w.failed.Error())
		}
		return "asking the broker..."
	}
	profile := w.got
	over := fmt.Sprintf("the last %s", time.Duration(profile.SinceSeconds*1e9).Round(100*time.Millisecond))
	if w.total {
		over = "since the start"
	}
	if w.paused {
		over += ", PAUSED"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s  process %d, up %s, %s\n", styleTitle.Render("tailbound "+profile.Version), profile.PID, time.Duration(profile.UptimeSeconds*1e9).Round(time.Second), over)
	process := profile.Process
	fmt.Fprintf(&text, "%s resident, %s of Go's heap live, %d collections, pauses p99 %s max %s%s\n",
		mib(process.RSSBytes), mib(process.HeapLiveBytes), process.GCCycles, term.ShortNS(process.GCPauses.P99NS), term.ShortNS(process.GCPauses.MaxNS), w.allocRate())
	pages := []string{"all"}
	for _, shard := range profile.Shards {
		pages = append(pages, fmt.Sprintf("%d", shard.Shard))
	}
	pages[w.page] = stylePage.Render(" " + pages[w.page] + " ")
	fmt.Fprintf(&text, "shard: %s\n\n", strings.Join(pages, "  "))
	if w.failed != nil {
		fmt.Fprintf(&text, "%s\n\n", styleBad.Render(w.failed.Error()))
	}
	if w.page == 0 {
		text.WriteString(w.overview())
	} else {
		text.WriteString(w.shard(w.page - 1))
	}
	text.WriteString("\n" + styleFaint.Render("q quit   left/right or 0-9 shard   a all   t total/interval   p pause   +/- interval "+w.interval.String()))
	return text.String()
}

func (w live) report(shard ShardProfile) metrics.Report {
	if w.total {
		return shard.Total
	}
	return shard.Since
}

// rate is the growth of a shard's counter per second between the last two answers;
// false if there are not two of the same process.
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
	table := plainTable("shard", "records/s", "in/s", "out/s", "produce p50", "p99", "p99.9", "max", "x", "fetch p50", "p99.9", "turn p99.9", "max", "log memory", "journal", "sleeps/s")
	for i, shard := range w.got.Shards {
		report := w.report(shard)
		produce, fetch := report.Kinds[metrics.Produce].Total, report.Kinds[metrics.Fetch].Total
		name := fmt.Sprintf("%d", shard.Shard)
		if shard.Shard == 0 {
			name = "0 control"
		}
		if shard.Late {
			name = styleBad.Render(name + " LATE")
		}
		table.Row(name, w.rateText(i, "records"), w.rateText(i, "bytes_in"), w.rateText(i, "bytes_out"),
			quantile(produce, produce.P50NS), quantile(produce, produce.P99NS), quantile(produce, produce.P999NS), quantile(produce, produce.MaxNS), tail(produce),
			quantile(fetch, fetch.P50NS), quantile(fetch, fetch.P999NS), quantile(report.Turn, report.Turn.P999NS), quantile(report.Turn, report.Turn.MaxNS),
			share(shard.Levels, "log memory slabs"), share(shard.Levels, "journal blocks"), w.rateText(i, "sleeps"))
	}
	return table.Render() + "\n" + styleFaint.Render("x: p99.9 over p50 of produce, the whole way from received to sent") + "\n"
}

// shard is the page of one shard: stages, rates and pools.
func (w live) shard(i int) string {
	shard := w.got.Shards[i]
	report := w.report(shard)
	var b strings.Builder
	role := "data shard"
	if shard.Shard == 0 {
		role = "control shard"
	}
	fmt.Fprintf(&b, "%s %d, node %d, %s\n", role, shard.Shard, shard.Node, shard.Address)
	if shard.Late {
		b.WriteString(styleBad.Render("it took no turn in time: these are older figures") + "\n")
	}
	table := plainTable("", "count", "p50", "p90", "p99", "p99.9", "max", "x")
	row := func(name string, summary metrics.Summary) {
		if summary.Count > 0 {
			table.Row(name, fmt.Sprint(summary.Count), term.ShortNS(summary.P50NS), term.ShortNS(summary.P90NS), term.ShortNS(summary.P99NS), term.ShortNS(summary.P999NS), term.ShortNS(summary.MaxNS), tail(summary))
		}
	}
	for _, kind := range report.Kinds {
		row(styleTitle.Render(kind.Kind), kind.Total)
		for _, stage := range kind.Stages {
			row(stage.Stage, stage.Took)
		}
	}
	row(styleTitle.Render("turn"), report.Turn)
	b.WriteString(table.Render() + "\n\n")
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
	for _, pool := range shard.Levels {
		if pool.Used > 0 || pool.Peak > 0 {
			pools.Row(pool.Name, fmt.Sprint(pool.Used), orNothing(pool.Peak), fmt.Sprint(pool.Max), bar(pool, 20))
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

func quantile(summary metrics.Summary, ns int64) string {
	if summary.Count == 0 {
		return ""
	}
	return term.ShortNS(ns)
}

// tail is p99.9 over p50, coloured if it is large.
func tail(summary metrics.Summary) string {
	if summary.Count < 1000 || summary.P50NS == 0 {
		return "" // too few to have one
	}
	x := float64(summary.P999NS) / float64(summary.P50NS)
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
	for _, pool := range levels {
		if pool.Name == name && pool.Max > 0 {
			return fmt.Sprintf("%d%%", pool.Used*100/pool.Max)
		}
	}
	return ""
}

// bar shows how much of a pool is used, and its peak.
func bar(pool metrics.Gauge, width int) string {
	if pool.Max <= 0 {
		return ""
	}
	used, peak := int(pool.Used*int64(width)/pool.Max), int(max(pool.Used, pool.Peak)*int64(width)/pool.Max)
	text := strings.Repeat("█", used) + strings.Repeat("▒", peak-used) + strings.Repeat("·", width-peak)
	if pool.Used*10 >= pool.Max*9 {
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
