package record

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func filled(seed uint64, n int, scale float64) *Histogram {
	r := rand.New(rand.NewPCG(seed, 1))
	h := NewHistogram()
	for range n {
		h.Record(int64((1 + r.ExpFloat64()) * scale))
	}
	return h
}

// What is written is read back, by us and by the library that others use.
func TestLogIsReadByOthers(t *testing.T) {
	var b bytes.Buffer
	start := time.UnixMilli(1_700_000_000_250)
	l, err := NewLog(&b, start, "first\nsecond")
	if err != nil {
		t.Fatal(err)
	}
	one, two := filled(1, 1000, 1e6), filled(2, 10, 5e9)
	for _, i := range []Interval{{"produce", 0, 1e9, one.Pack()}, {"end-to-end", 0, 1e9, two.Pack()}, {"produce", 1e9, 2.5e9, two.Pack()}} {
		if err := l.Add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Add(Interval{Series: "a b"}); err == nil {
		t.Error("a tag with a space was taken")
	}
	whole := b.String()
	got, err := ReadLog(strings.NewReader(whole + "Tag=produce,2.5,1.0,HIST"))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d intervals, %v", len(got), err)
	}
	if got[2].Series != "produce" || got[2].StartNS != 1e9 || got[2].EndNS != 2.5e9 || got[2].H.Count() != 10 {
		t.Errorf("the third reads back as %+v", got[2])
	}
	pooled := Pool(got, "produce")
	want := NewHistogram()
	want.Add(one)
	want.Add(two)
	for _, p := range []float64{1, 50, 99, 99.9} {
		if pooled.At(p) != want.At(p) {
			t.Errorf("p%v is %d, want %d", p, pooled.At(p), want.At(p))
		}
	}
	if d := pooled.Max() - want.Max(); d > 1000 || d < -1000 {
		t.Errorf("max %d, want %d within a microsecond", pooled.Max(), want.Max())
	}
	other := hdrhistogram.NewHistogramLogReader(strings.NewReader(whole))
	n := 0
	for {
		h, err := other.NextIntervalHistogram()
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			break
		}
		n++
		if n == 1 && (h.Tag() != "produce" || h.TotalCount() != 1000 || h.StartTimeMs() != start.UnixMilli()) {
			t.Errorf("the library reads tag %q, %d values, start %d", h.Tag(), h.TotalCount(), h.StartTimeMs())
		}
	}
	if n != 3 {
		t.Errorf("the library reads %d intervals", n)
	}
}

func TestRecordNeverLoses(t *testing.T) {
	h := NewHistogram()
	for _, v := range []int64{-5, 0, 1, topNS, topNS * 10} {
		h.Record(v)
	}
	if s := h.Summary(); s.Count != 5 || s.Clamped != 1 || s.Max != topNS*10 {
		t.Errorf("%+v", s)
	}
	if n := testing.AllocsPerRun(100, func() { h.Record(12345); h.Record(1 << 60) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRecordingIsReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	r, err := Create(dir, time.Now(), "")
	if err != nil {
		t.Fatal(err)
	}
	h := filled(1, 50, 1e5)
	if err := r.Add(Interval{"produce", 0, 1e9, h.Pack()}); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(&Run{Name: "x", Machine: Describe(dir), Series: map[string]Summary{"produce": h.Summary()}}); err != nil {
		t.Fatal(err)
	}
	all, err := Read(filepath.Dir(dir))
	if err != nil || len(all) != 1 || all[0].Path != "b" || all[0].Run.Name != "x" || Pool(all[0].Intervals, "produce").Count() != 50 {
		t.Fatalf("%+v, %v", all, err)
	}
	if m := all[0].Run.Machine; m.Kernel == "" || m.CPUs == 0 || m.FileSystem == "" {
		t.Errorf("the machine is %+v", m)
	}
	if _, err := Create(dir, time.Now(), ""); err == nil {
		t.Error("a recording was written over")
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("nothing was read, and nobody said so")
	}
	if err := os.WriteFile(filepath.Join(dir, runFile), []byte(`{"Format":9}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("a format of the future was read")
	}
}
