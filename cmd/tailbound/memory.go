package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tailbound/tailbound/shard"
)

// printMemory prints what a broker with these settings takes, term by term.
func (o *serveOptions) printMemory(w io.Writer) error {
	options, err := o.memoryOptions()
	if err != nil {
		return err
	}
	shards := options.DataShards
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	arenas, heap := 0, 0
	for i, times := range []int{1, shards} {
		p, err := shard.PlanPools(i, options)
		if err != nil {
			return o.tooSmall(err)
		}
		if i == 0 {
			fmt.Fprintln(t, "control shard\t\t\t\t")
		} else {
			fmt.Fprintf(t, "\t\t\t\t\ndata shard (%d of them)\t\t\t\t\n", times)
		}
		n := printPools(t, "arena, locked", p.Arena)
		if n != p.ArenaBytes {
			return fmt.Errorf("the terms of the arena sum to %d of its %d bytes", n, p.ArenaBytes)
		}
		arenas += times * n
		heap += times * printPools(t, "tables in Go's heap", p.Heap)
	}
	mail := shard.MailboxBytes(shards, options)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nthe process: arenas %s + tables %s + mail between shards %s = %s,\nand of Go's heap at most %s more: the control shard's requests, and profiles\n",
		binaryBytes(arenas), binaryBytes(heap), binaryBytes(mail), binaryBytes(arenas+heap+mail), binaryBytes(garbageMax))
	return err
}

// memoryOptions are what decides about memory.
func (o *serveOptions) memoryOptions() (shard.BrokerOptions, error) {
	shards := o.shards
	if shards == 0 {
		allowed, err := allowedCPUs()
		if err != nil {
			return shard.BrokerOptions{}, err
		}
		shards = o.dataShards(allowed)
	}
	return shard.BrokerOptions{DataShards: shards, ArenaBytes: int(o.arena), MessageBytesMax: int(o.messageBytes), JournalBytes: int(o.journal), ConnsMax: o.connsMax, FetchSessionsMax: o.sessionSlots(), PartitionsDefault: o.partitions,
		TopicsMax: o.partitionsMax, PartitionsMax: o.partitionsMax, Tuning: o.tuning(), Nodes: make([]shard.Node, shards+1)}, nil
}

// tuning is what a shard is told of how it works.
func (o *serveOptions) tuning() shard.Tuning {
	t := shard.Tuning{InflightMax: o.inflightMax, DirectBytes: int(o.directBytes), ReceiveBufferBytes: int(o.receiveBuffer), SpinNS: int64(o.spin), Nice: o.nice}
	if t.DirectBytes == 0 {
		t.DirectBytes = -1
	}
	return t
}

// sessionSlots is how many fetch sessions a data shard keeps, as its options
// have it: below 0 is none.
func (o *serveOptions) sessionSlots() int {
	if o.fetchSessions == 0 {
		return -1
	}
	return o.fetchSessions
}

// fits says whether the pools of a data shard fit its arena.
func (o *serveOptions) fits() error {
	options, err := o.memoryOptions()
	if err != nil {
		return err
	}
	if _, err := shard.PlanPools(1, options); err != nil {
		return o.tooSmall(err)
	}
	return nil
}

func (o *serveOptions) tooSmall(err error) error {
	return fmt.Errorf("the pools of a shard do not fit its memory: %w; give it a larger --arena than %s, or a smaller --message-max-bytes than %d or --partitions-max than %d (--print-memory shows what each takes)",
		err, &o.arena, o.messageBytes, o.partitionsMax)
}

func printPools(t *tabwriter.Writer, title string, pools []shard.Pool) (sum int) {
	for _, p := range pools {
		arithmetic := fmt.Sprintf("%d x %s", p.Count, binaryBytes(p.Each))
		if p.Count == 1 {
			arithmetic = ""
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t\n", p.Name, arithmetic, binaryBytes(p.Bytes), p.Bytes)
		sum += p.Bytes
	}
	fmt.Fprintf(t, "%s\t\t= %s\t%d\t\n", title, binaryBytes(sum), sum)
	return sum
}

// binaryBytes is a size with up to four digits.
func binaryBytes(n int) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	if v == float64(int(v)) {
		return fmt.Sprintf("%d %s", int(v), unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
