package page

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/record"
)

func example(name string, scale float64) record.Recording {
	r := rand.New(rand.NewPCG(1, 1))
	rec := record.Recording{Path: name, Run: record.Run{
		Name: name, Why: "Because </script><b>markup</b> is text.", Started: time.Unix(1_700_000_000, 0), Seconds: 20, Machine: record.Machine{CPU: "a CPU", CPUs: 2, Kernel: "6.1"},
		Figures: []record.Figure{{Name: "requests/s", Value: 1234.5}}, Notes: []string{"a note"},
		Verdict: []record.Check{{Expected: "produce p99 < 1s", Was: "2 s"}},
		Profile: json.RawMessage(`{"shards":[{"shard":1,"since":{"kinds":[{"kind":"produce","total":{"count":9,"mean_ns":3000,"p99_ns":9000},"stages":[{"stage":"parsed","took":{"count":9,"mean_ns":1000,"p50_ns":900,"p99_ns":2000,"p999_ns":2000,"max_ns":2000}},{"stage":"durable","took":{"count":9,"mean_ns":2000,"p50_ns":900,"p99_ns":2000,"p999_ns":2000,"max_ns":2000}}]}]}}],"tail":{"shards":[{"shard":1,"kinds":[{"kind":"produce","p99_ns":9000,"causes":[{"cause":"disk sync","ns":5000,"share":0.8}],"slowest":[{"took_ns":20000,"verdict":"it waited for the disk","stages":[{"stage":"durable","took_ns":20000,"causes":null}]}]}]}]}}`),
	}}
	for i := range int64(20) {
		for _, s := range []string{"produce", "end-to-end", "generator-lag", "hiccup-cpu0", "hiccup-cpu1"} {
			h := record.NewHistogram()
			for range 500 {
				h.Record(int64((0.2 + r.ExpFloat64()*r.ExpFloat64()) * scale))
			}
			rec.Intervals = append(rec.Intervals, record.Interval{Series: s, StartNS: i * 1e9, EndNS: (i + 1) * 1e9, H: h.Pack()})
		}
	}
	return rec
}

func TestPageIsSelfContained(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, "a <title>", []record.Recording{example("a", 1e6), example("b", 2e6)}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, m := range regexp.MustCompile(`https?://[^"'\s]+`).FindAllString(page, -1) {
		if !strings.HasPrefix(m, "http://www.w3.org/") { // the name of SVG's namespace
			t.Errorf("it points to %s", m)
		}
	}
	if strings.Contains(page, "<b>markup") || strings.Contains(page, "</script><b>") || strings.Contains(page, "<title>a <title>") {
		t.Error("text of a recording is markup in the page")
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
}

// A browser draws it, and says so.
func TestPageIsDrawn(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("there is no chromium here to draw it")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "page.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(f, "drawn", []record.Recording{example("a", 1e6), example("b", 2e6)}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+filepath.Join(dir, "profile"), "--dump-dom", "file://"+path).Output()
	if err != nil {
		t.Skipf("%s does not run here: %v", browser, err)
	}
	m := regexp.MustCompile(`data-drawn="(\d+)"`).FindSubmatch(out)
	if m == nil {
		t.Fatal("the script did not come to its end")
	}
	// Two recordings, each with two heat maps of 20 intervals, hiccups and stages.
	if n, _ := strconv.Atoi(string(m[1])); n < 400 {
		t.Errorf("%d marks were drawn", n)
	}
	for _, want := range []string{"end-to-end over time", "Data shard 1, produce", "a note", "it waited for the disk", "99.9 %"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the drawn page has no %q", want)
		}
	}
}
