package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
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
		p, err := broker.PlanPools(options, i)
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
	mail, err := broker.MailboxBytes(options)
	if err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nthe process: arenas %s + tables %s + mail between shards %s = %s,\nand of Go's heap at most %s more: the control shard's requests, and profiles\n",
		term.BinaryBytes(arenas), term.BinaryBytes(heap), term.BinaryBytes(mail), term.BinaryBytes(arenas+heap+mail), term.BinaryBytes(garbageMax))
	return err
}

// memoryOptions are what decides about memory.
func (o *serveOptions) memoryOptions() (broker.Options, error) {
	b := broker.Defaults()
	shards := o.shards
	if shards == 0 {
		allowed, err := allowedCPUs()
		if err != nil {
			return b, err
		}
		shards = o.dataShards(allowed)
	}
	b.DataShards, b.Nodes = shards, make([]shard.Node, shards+1)
	b.ArenaBytes, b.JournalBytes, b.MessageBytesMax = int(o.arena), cmp.Or(int(o.journal), b.JournalBytes), int(o.messageBytes)
	b.ConnsMax, b.FetchSessionsMax = o.connsMax, o.fetchSessions
	b.PartitionsDefault, b.TopicsMax, b.PartitionsMax = o.partitions, o.partitionsMax, o.partitionsMax
	b.InflightMax, b.DirectBytes, b.ReceiveBufferBytes, b.SpinNS, b.Nice = o.inflightMax, int(o.directBytes), int(o.receiveBuffer), int64(o.spin), o.nice
	return b, nil
}

// fits says whether the pools of a data shard fit its arena.
func (o *serveOptions) fits() error {
	options, err := o.memoryOptions()
	if err != nil {
		return err
	}
	if _, err := broker.PlanPools(options, 1); err != nil {
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
		arithmetic := fmt.Sprintf("%d x %s", p.Count, term.BinaryBytes(p.Each))
		if p.Count == 1 {
			arithmetic = ""
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t\n", p.Name, arithmetic, term.BinaryBytes(p.Bytes), p.Bytes)
		sum += p.Bytes
	}
	fmt.Fprintf(t, "%s\t\t= %s\t%d\t\n", title, term.BinaryBytes(sum), sum)
	return sum
}
