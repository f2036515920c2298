package client

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// position is a place in a partition, absolute or relative.
type position struct {
	kind positionKind
	n    int64 // an offset, a number of records, or ms since 1970
}

type positionKind uint8

const (
	atStart     positionKind = iota // the first record
	atEnd                           // the next record to be written
	atOffset                        // offset n
	afterStart                      // n records after the first
	beforeEnd                       // n records before the end
	atTime                          // the first record of time n or later
	positionIs  = "it is start, end, an offset, +N (after the start), -N (before the end) or @TIME"
	timeIs      = "a time is 2026-11-21, 2026-11-21T09:30:00Z, milliseconds since 1970, or -1h30m (ago)"
	secondsMax  = 1e11 // a number below it is seconds (up to the year 5138), otherwise milliseconds
	localLayout = "2006-01-02T15:04:05"
)

// parsePosition reads a position; positionIs lists the forms.
func parsePosition(text string) (position, error) {
	switch strings.ToLower(text) {
	case "start", "beginning", "earliest", "oldest":
		return position{kind: atStart}, nil
	case "end", "latest", "newest":
		return position{kind: atEnd}, nil
	case "":
		return position{}, errors.New(positionIs)
	}
	if when, ok := strings.CutPrefix(text, "@"); ok {
		ms, err := parseTime(when, time.Now())
		return position{atTime, ms}, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return position{}, errors.New(positionIs)
	case text[0] == '+':
		return position{afterStart, n}, nil
	case text[0] == '-':
		return position{beforeEnd, -n}, nil
	}
	return position{atOffset, n}, nil
}

// parseTime reads a time, in ms since 1970; timeIs lists the forms. A time without a
// zone is local.
func parseTime(text string, now time.Time) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		if n < secondsMax {
			n *= 1000
		}
		return n, nil
	}
	for _, layout := range []string{time.RFC3339Nano, localLayout, "2006-01-02T15:04", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t.UnixMilli(), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d.Abs()).UnixMilli(), nil
	}
	return 0, fmt.Errorf("%q: %s", text, timeIs)
}

type offsetRange struct{ from, to position }

// partitionRange is a range of one partition's records: from is in it, to is not.
// start and end are those of the partition.
//
// Invariant: start <= from <= to <= end, unless from is an offset beyond the end.
type partitionRange struct {
	topic     string
	partition int32
	from, to  int64
	start     int64
	end       int64
}

// ranges are what a range of positions means in each partition, ordered by topic and
// partition. An empty list of partitions means all.
func (c *client) ranges(topics []string, partitions []int32, span offsetRange) ([]partitionRange, error) {
	metadata, err := c.metadata(topics...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.limited()
	defer cancel()
	list := func(f func() (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
		l, err := f()
		if err == nil {
			err = l.Error()
		}
		if err != nil {
			return nil, c.explain(brokerError(err, ""))
		}
		return l, nil
	}
	starts, err := list(func() (kadm.ListedOffsets, error) { return c.admin.ListStartOffsets(ctx, topics...) })
	if err != nil {
		return nil, err
	}
	ends, err := list(func() (kadm.ListedOffsets, error) { return c.admin.ListEndOffsets(ctx, topics...) })
	if err != nil {
		return nil, err
	}
	resolve := func(p position) (func(topic string, i int32) int64, error) {
		var times kadm.ListedOffsets
		if p.kind == atTime {
			if times, err = list(func() (kadm.ListedOffsets, error) { return c.admin.ListOffsetsAfterMilli(ctx, p.n, topics...) }); err != nil {
				return nil, err
			}
		}
		return func(topic string, i int32) int64 {
			start, end := starts[topic][i].Offset, ends[topic][i].Offset
			switch p.kind {
			case atStart:
				return start
			case atEnd:
				return end
			case afterStart:
				return min(start+p.n, end)
			case beforeEnd:
				return max(end-p.n, start)
			case atTime:
				if listed, ok := times.Lookup(topic, i); ok && listed.Offset >= 0 {
					return listed.Offset
				}
				return end
			}
			return p.n
		}, nil
	}
	from, err := resolve(span.from)
	if err != nil {
		return nil, err
	}
	to, err := resolve(span.to)
	if err != nil {
		return nil, err
	}
	var all []partitionRange
	for _, topic := range topics {
		numbers := metadata.Topics[topic].Partitions.Numbers()
		for _, partition := range partitions {
			if !slices.Contains(numbers, partition) {
				return nil, fmt.Errorf("topic %s has no partition %d; it has %s, from 0", topic, partition, term.Plural(len(numbers), "partition"))
			}
		}
		for _, partition := range numbers {
			if len(partitions) > 0 && !slices.Contains(partitions, partition) {
				continue
			}
			part := partitionRange{topic: topic, partition: partition, start: starts[topic][partition].Offset, end: ends[topic][partition].Offset}
			part.from = max(from(topic, partition), part.start)
			part.to = max(to(topic, partition), part.start)
			all = append(all, part)
		}
	}
	return all, nil
}
