package format

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// structure is one table of docs/FORMAT.md and the code that writes it.
type structure struct {
	name    string
	heading string // the line of docs/FORMAT.md below which the table is
	table   int    // which of those below it, from 0
	of      any    // a struct
	put     func(of any) []byte
	bytes   int               // its length; 0: the table ends where a block does, or a body begins
	words   map[string]string // of the row in which a field of the struct stands
	derived [][2]int          // bytes that are computed from others: CRCs, counts
}

func slot(put func(buf []byte)) []byte {
	buf := make([]byte, BlockBytes)
	put(buf)
	return buf
}

var structures = []structure{
	{name: "superblock", heading: "## Superblock", of: Superblock{}, bytes: BlockBytes,
		put: func(of any) []byte { s := of.(Superblock); return slot(s.Put) },
		words: map[string]string{"Directory": "directory id", "Epoch": "epoch of this life", "Shards": "shards", "Sequence": "sequence",
			"BatchMax": "largest batch", "InflightMax": "frames and runs in flight", "WrittenBy": "version of Tailbound", "Needs": "incompatible feature bits"},
		derived: [][2]int{{4092, 4096}}},
	{name: "frame and run", heading: "## What frames and runs have in common", of: FrameHeader{}, bytes: HeaderBytes,
		put: func(of any) []byte { h := of.(FrameHeader); return slot(h.Put)[:HeaderBytes] },
		words: map[string]string{"Directory": "directory id", "Epoch": "epoch", "BodyBytes": "body length", "BodyCRC": "CRC of the body", "Previous": "chain", "Compatible": "compatible feature bits",
			"Journal": "its own", "Shard": "its own", "Entries": "its own", "Sequence": "its own", "Durable": "its own"},
		derived: [][2]int{{44, 48}}},
	{name: "frame", heading: "### A frame's own", of: FrameHeader{},
		put: func(of any) []byte { h := of.(FrameHeader); return slot(h.Put)[:HeaderBytes] },
		words: map[string]string{"Journal": "journal id", "Shard": "shard", "Entries": "number of entries", "Sequence": "sequence", "Durable": "durable",
			"Directory": "", "Epoch": "", "BodyBytes": "", "BodyCRC": "", "Previous": "", "Compatible": ""},
		derived: [][2]int{{44, 48}}},
	{name: "entry", heading: "### Entries of a frame, and of a run", of: Entry{}, bytes: EntryHeaderBytes,
		put: func(of any) []byte {
			h := of.(Entry)
			p := make([]byte, EntryHeaderBytes)
			h.Put(p)
			return p
		},
		words: map[string]string{"Kind": "kind", "Flags": "flags", "Log": "log id", "Base": "base offset", "Count": "count of offsets", "Length": "length of the bytes",
			"CRC": "batch's own CRC", "Slot": "slot", "Durable": "durable offset", "MaxTime": "largest timestamp", "Aux": "generation"},
		derived: [][2]int{{0, 4}}},
	{name: "run", heading: "### A run's own", of: RunHeader{},
		put: func(of any) []byte { h := of.(RunHeader); return slot(h.Put)[:HeaderBytes] },
		words: map[string]string{"Log": "log id", "Generation": "generation", "Base": "base offset", "End": "end", "MaxTime": "largest timestamp",
			"MaxTimeBase": "batch that has it", "Durable": "durable offset", "Batches": "number of batches",
			"Directory": "", "Epoch": "", "BodyBytes": "", "BodyCRC": "", "Previous": "", "Compatible": "", "TimesChecked": ""},
		derived: [][2]int{{44, 48}, {144, 148}}},
	{name: "index", heading: "### The index of a segment", of: IndexHeader{}, bytes: BlockBytes,
		put: func(of any) []byte { x := of.(IndexHeader); return slot(func(p []byte) { x.Put(p, nil) }) },
		words: map[string]string{"Generation": "generation", "Log": "log id", "Position": "position of this block", "Directory": "directory id",
			"Stride": "least distance", "Entries": "-"},
		derived: [][2]int{{4092, 4096}}},
	{name: "checkpoint", heading: "## Checkpoint", of: Checkpoint{}, bytes: CheckpointHeaderBytes,
		put: func(of any) []byte {
			c := of.(Checkpoint)
			return slot(func(p []byte) { c.Put(p, 0) })[:CheckpointHeaderBytes]
		},
		words: map[string]string{"Directory": "directory id", "Epoch": "epoch", "Shard": "shard", "Clean": "clean stop", "Sequence": "sequence", "Journal": "journal id",
			"Block": "block of the journal", "Frame": "sequence of the frame", "Previous": "chain", "Logs": "number of logs", "Durable": "durable frame"},
		derived: [][2]int{{44, 48}}},
	{name: "log of a checkpoint", heading: "## Checkpoint", table: 1, of: LogRecord{}, bytes: LogRecordBytes,
		put: func(of any) []byte {
			l := of.(LogRecord)
			p := make([]byte, LogRecordBytes)
			PutLogRecord(p, &l, len(l.Epochs), len(l.Holes), len(l.Segments))
			return p
		},
		words: map[string]string{"ID": "log id", "Start": "log start", "End": "flushed", "MaxTime": "largest timestamp", "MaxTimeBase": "base offset", "CorruptFrom": "first offset that is lost",
			"CorruptTo": "one past", "Holes": "-", "Chain": "chain", "Epochs": "number of leader epochs", "Segments": "number of segments",
			"Attachment": "length of the attachment", "Headers": "length of the headers"}},
	{name: "leader epoch of a log", heading: "## Checkpoint", table: 2, of: EpochStart{}, bytes: EpochRecordBytes,
		put: func(of any) []byte {
			p := make([]byte, EpochRecordBytes)
			PutEpoch(p, of.(EpochStart))
			return p
		},
		words: map[string]string{"Epoch": "epoch", "Start": "first offset"}},
	{name: "hole of a log", heading: "## Checkpoint", table: 3, of: Hole{}, bytes: HoleBytes,
		put: func(of any) []byte {
			p := make([]byte, HoleBytes)
			PutHole(p, of.(Hole))
			return p
		},
		words: map[string]string{"From": "first offset", "To": "one past"}},
	{name: "segment of a log", heading: "## Checkpoint", table: 4, of: SegmentRecord{}, bytes: SegmentRecordBytes,
		put: func(of any) []byte {
			s := of.(SegmentRecord)
			p := make([]byte, SegmentRecordBytes)
			PutSegment(p, &s)
			return p
		},
		words: map[string]string{"Generation": "generation", "Base": "base offset", "End": "end", "Position": "position", "MaxTime": "largest timestamp", "Chain": "chain", "Bytes": "allocated"}},
	{name: "window of a producer", heading: "### An attachment: the producers' windows", of: ProducerWindow{}, bytes: ProducerBytes,
		put: func(of any) []byte {
			w := of.(ProducerWindow)
			p := make([]byte, ProducerBytes)
			w.Put(p)
			return p
		},
		words: map[string]string{"ID": "producer id", "Epoch": "epoch", "Marks": "number of marks"}},
	{name: "mark of a producer", heading: "### An attachment: the producers' windows", table: 1, of: BatchMark{}, bytes: MarkBytes,
		put: func(of any) []byte {
			m := of.(BatchMark)
			p := make([]byte, MarkBytes)
			m.Put(p)
			return p
		},
		words: map[string]string{"First": "first sequence", "Last": "last sequence", "Base": "base offset", "End": "end"}},
	{name: "command", heading: "## The control log's commands", of: Command{},
		put:   func(of any) []byte { c := of.(Command); return c.Append(nil, nil) },
		words: map[string]string{"Version": "-", "Kind": "kind", "BodyBytes": "-", "Sequence": "sequence"}},
	{name: "count of a snapshot's parts", heading: "## The control log's commands", table: 1, of: PartCount{}, bytes: PartCountBytes,
		put:   func(of any) []byte { return of.(PartCount).Append(nil) },
		words: map[string]string{"Kind": "kind", "Count": "how many"}},
}

// row is one of a table: bytes 0 where it says none.
type row struct {
	at, bytes int
	field     string
}

// TestLayouts prints where each field stands, as the code writes it, and holds
// the tables of docs/FORMAT.md against that.
func TestLayouts(t *testing.T) {
	page, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range structures {
		t.Run(s.name, func(t *testing.T) {
			rows := tableOf(string(page), s.heading, s.table)
			if len(rows) == 0 {
				t.Fatalf("docs/FORMAT.md has no table %d below %q", s.table, s.heading)
			}
			empty := s.put(s.of)
			told := map[int]bool{} // rows that stand for a field
			for _, f := range reflect.VisibleFields(reflect.TypeOf(s.of)) {
				if f.Anonymous || f.Name == "Magic" || s.name != "entry" && f.Name == "CRC" { // Put computes them
					continue
				}
				words, ok := s.words[f.Name]
				if !ok {
					t.Errorf("nothing says in which row %s stands", f.Name)
				}
				if words == "-" || words == "" { // of another table, or written from something else
					continue
				}
				from, to := s.written(f, empty)
				t.Logf("%-28s %4d %4d  %s", s.name, from, to-from, f.Name)
				whole := f.Type.Kind() != reflect.Bool && f.Type.Kind() != reflect.Slice
				found := false
				for i, r := range rows {
					in := r.at == from && (r.bytes == to-from || !whole && r.bytes >= to-from)
					if words == "its own" {
						in = r.at <= from && to <= r.at+r.bytes
					}
					if in && strings.Contains(r.field, words) {
						found, told[i] = true, true
					}
				}
				if !found {
					t.Errorf("%s is written to bytes %d to %d; docs/FORMAT.md has no row %q there", f.Name, from, to-1, words)
				}
			}
			s.rest(t, rows, told, empty)
		})
	}
}

// written is where field f of s is written: what changes when its bits do.
func (s *structure) written(f reflect.StructField, empty []byte) (from, to int) {
	v := reflect.New(reflect.TypeOf(s.of)).Elem()
	v.Set(reflect.ValueOf(s.of))
	switch x := v.FieldByIndex(f.Index); x.Kind() {
	case reflect.Bool:
		x.SetBool(true)
	case reflect.Array:
		for i := range x.Len() {
			x.Index(i).SetUint(0xff)
		}
	case reflect.Slice:
		x.Set(reflect.MakeSlice(x.Type(), 0xff, 0xff))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x.SetInt(-1)
		if f.Name == "Bytes" { // it is written as blocks
			x.SetInt(BlockBytes * math.MaxUint32)
		}
	default:
		x.SetUint(^uint64(0) >> (64 - x.Type().Bits()))
	}
	full := s.put(v.Interface())
	from, to = -1, -1
	for i := range full {
		derived := false
		for _, d := range s.derived {
			derived = derived || i >= d[0] && i < d[1]
		}
		if full[i] != empty[i] && !derived {
			if from < 0 {
				from = i
			}
			to = i + 1
		}
	}
	return from, to
}

// rest holds the rows against the bytes that no field of the struct is written
// to: constants are as the page says, what it calls zero is zero. Rows follow
// each other without a gap.
func (s *structure) rest(t *testing.T, rows []row, told map[int]bool, empty []byte) {
	magic := regexp.MustCompile(`0x([0-9a-f]{8})`)
	number := regexp.MustCompile(`^(format version|header length|version), (\d+)`)
	at := rows[0].at
	for i, r := range rows {
		if r.at != at {
			t.Errorf("a row begins at %d, the one before ended at %d", r.at, at)
		}
		end := r.at + r.bytes
		if r.bytes == 0 && i+1 < len(rows) {
			end = rows[i+1].at
		}
		at = end
		if told[i] || end > len(empty) {
			continue
		}
		buf := empty[r.at:end]
		switch {
		case strings.HasPrefix(r.field, "magic"):
			ok := false
			for _, m := range magic.FindAllStringSubmatch(r.field, -1) {
				n, _ := strconv.ParseUint(m[1], 16, 32)
				ok = ok || uint32(n) == le.Uint32(buf)
			}
			if !ok {
				t.Errorf("the magic number is %#x; docs/FORMAT.md says %q", le.Uint32(buf), r.field)
			}
		case number.MatchString(r.field):
			n, _ := strconv.Atoi(number.FindStringSubmatch(r.field)[2])
			have := int(buf[0])
			if len(buf) > 1 {
				have = int(le.Uint16(buf))
			}
			if n != have {
				t.Errorf("%d is written to byte %d; docs/FORMAT.md says %q", have, r.at, r.field)
			}
		case strings.Contains(r.field, "CRC"):
		case strings.Contains(r.field, "zero"), r.field == "":
			if !bytes.Equal(buf, make([]byte, len(buf))) {
				t.Errorf("bytes %d to %d are %x; docs/FORMAT.md says %q", r.at, end-1, buf, r.field)
			}
		case strings.Contains(r.field, "end − base"), strings.Contains(r.field, "kind: 1 data"), strings.Contains(r.field, "feature bits"),
			strings.Contains(r.field, "number of entries"), strings.Contains(r.field, "base offset 8, position 8"), strings.Contains(r.field, "body length"), r.field == "body", r.field == "format version":
		default:
			t.Errorf("nothing is written to bytes %d to %d that would be %q", r.at, end-1, r.field)
		}
	}
	if s.bytes > 0 && at != s.bytes {
		t.Errorf("it has %d bytes; the rows end at %d", s.bytes, at)
	}
}

// tableOf is table n below a heading.
func tableOf(page, heading string, n int) (rows []row) {
	_, below, ok := strings.Cut(page, "\n"+heading+"\n")
	if !ok {
		return nil
	}
	line := regexp.MustCompile(`^\| (\d+) \| (\d*)( each)? ?\|(.*)`)
	table, in := -1, false
	for _, l := range strings.Split(below, "\n") {
		if strings.HasPrefix(l, "#") {
			if strings.HasPrefix(l, "## ") || table >= 0 {
				break
			}
		}
		if !strings.HasPrefix(l, "|") {
			in = false
			continue
		}
		if !in {
			in = true
			table++
		}
		if table != n {
			continue
		}
		if m := line.FindStringSubmatch(l); m != nil {
			r := row{field: strings.TrimSpace(strings.Split(m[4], "|")[0])}
			r.at, _ = strconv.Atoi(m[1])
			if m[3] == "" {
				r.bytes, _ = strconv.Atoi(m[2])
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// TestNumbers holds what docs/FORMAT.md says of kinds, flags and lengths against
// the code.
func TestNumbers(t *testing.T) {
	page, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	for _, want := range []string{
		fmt.Sprintf("Format version %d.", Version),
		fmt.Sprintf("kind: %d data, %d segment assigned, %d segment released (reserved), %d log opened, %d log closed, %d log start moved; %d replaced, %d note, %d to %d replication",
			EntryData, EntryAssigned, EntryReleased, EntryOpened, EntryClosed, EntryStartMoved, EntryReplaced, EntryNote, EntryReplicaFirst, EntryReplicaLast),
		fmt.Sprintf("flags, zero: %d transactional, %d marker, %d abort, %d of a group", EntryTransactional, EntryMarker, EntryAbort, EntryOfGroup),
		fmt.Sprintf("%d lists of holes, and what comes with checkpoints of version %d; zero: %d sealed frames and runs, %d groups of replicas", bitNumber(NeedsCheckpoint2), Checkpoint2, bitNumber(NeedsSealed), bitNumber(NeedsReplicas)),
		fmt.Sprintf("zero: %d sealed", bitNumber(PieceSealed)),
		fmt.Sprintf("kind: %d data; %d is reserved for compacted", RunData, RunCompacted),
		fmt.Sprintf("flags: bit %d, zero: before 0.2.0, the log wrote direct runs in that life; %d, holes follow the leader epochs; %d had marks and %d attachment of version 2 are assigned", bitNumber(RecordDirect), bitNumber(RecordHoles), bitNumber(RecordMarks), bitNumber(RecordWindows2)),
		fmt.Sprintf("Their header is %d bytes", HeaderBytes),
		fmt.Sprintf("Header of %d bytes, body", CheckpointHeaderBytes),
		fmt.Sprintf("The body has for each log %d bytes", LogRecordBytes),
		fmt.Sprintf("headers (%d bytes each: end offset 8, the first %d bytes of a batch)", KeptHeaderBytes, BatchHeaderBytes),
		fmt.Sprintf("%d bytes of header, the bytes, zeroes up to a multiple of 8", EntryHeaderBytes),
		fmt.Sprintf("up to %d runs begin", IndexEntriesMax),
		fmt.Sprintf("| %d | %d each |", IndexHeaderBytes, IndexEntryBytes),
		fmt.Sprintf("first: %d bytes, then its marks", ProducerBytes),
		fmt.Sprintf("version, %d; 1 is read too", CommandVersion),
		fmt.Sprintf("versions before %s wrote", ThisRelease),
		"A run is at most " + fmt.Sprint(RunBytesMax>>20) + " MiB (one that was copied from the journal, " + fmt.Sprint(FlushBytesMax>>10) + " KiB)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/FORMAT.md does not say: %s", want)
		}
	}
}

// bitNumber is the number of the one bit that is set.
func bitNumber(flag int) int {
	n := 0
	for flag > 1 {
		flag >>= 1
		n++
	}
	return n
}
