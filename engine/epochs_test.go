package engine_test

import (
	"math/rand/v2"
	"testing"

	"github.com/tailbound/tailbound/engine/format"
)

// A log keeps its last format.EpochsMax leader epochs through clean stops and crashes, those
// of which no checkpoint was written included, and no more. A consumer that was away for
// longer is told an end at or past what it has read, never that its epoch is unknown.
func TestEpochsOfManyLives(t *testing.T) {
	h := newHost(t, 1)
	const lives = format.EpochsMax + 13
	end := map[int32]int64{} // of each epoch, one past its last record
	for life := int32(1); life <= lives; life++ {
		if err := h.open(); err != nil {
			t.Fatal(err)
		}
		if life == 1 {
			if err := h.openLog(2); err != nil {
				t.Fatal(err)
			}
		}
		for i := range h.boot.Shards[1].Logs {
			if n := len(h.boot.Shards[1].Logs[i].Record.Epochs); n > format.EpochsMax {
				t.Fatalf("life %d begins with %d leader epochs", life, n)
			}
		}
		n, s, err := h.slot(2)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // before this life has appended, and afterwards
			for asked := range life {
				known := asked >= life-format.EpochsMax && asked > 0
				found, to := n.engine.EpochEnd(s, asked, n.engine.Durable(s))
				if found != asked || known && to != end[asked] || to < end[asked] || to > n.engine.Durable(s) {
					t.Fatalf("life %d: epoch %d, which ended at %d: epoch %d ends at %d", life, asked, end[asked], found, to)
				}
			}
			if found, to := n.engine.EpochEnd(s, life, n.engine.Durable(s)); found != life || to != n.engine.Durable(s) {
				t.Fatalf("life %d: the present epoch: epoch %d ends at %d, the log at %d", life, found, to, n.engine.Durable(s))
			}
			if n.engine.Durable(s) > end[life-1] {
				break
			}
			if _, err := h.append(2, 1000, 10); err != nil {
				t.Fatal(err)
			}
			if err := h.settle(); err != nil {
				t.Fatal(err)
			}
		}
		end[life] = n.engine.Durable(s)
		if life%5 == 0 {
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		h.end()
		h.disk.Kill(rand.New(rand.NewPCG(uint64(life), 1)))
	}
}

// A start of an earlier version may have left any number of leader epochs in a checkpoint.
func TestLongListOfEpochs(t *testing.T) {
	const listed = 3 * format.EpochsMax
	buf := make([]byte, format.LogRecordBytes+listed*format.EpochRecordBytes)
	at := format.PutLogRecord(buf, &format.LogRecord{ID: 2, End: listed}, listed, 0, 0)
	for i := range listed {
		at += format.PutEpoch(buf[at:], format.EpochStart{Epoch: int32(i), Start: int64(i)})
	}
	records, err := format.GetLogRecords(buf, 1)
	if err != nil {
		t.Fatal(err)
	}
	epochs := records[0].Epochs
	if len(epochs) != format.EpochsMax || epochs[0].Epoch != listed-format.EpochsMax || epochs[format.EpochsMax-1].Epoch != listed-1 {
		t.Errorf("%d epochs of %d are kept, %+v to %+v", len(epochs), listed, epochs[0], epochs[len(epochs)-1])
	}
}
