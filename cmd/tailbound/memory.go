package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/shard"
)

// printMemory prints what a broker with these settings takes, pool by pool.
func printMemory(w io.Writer, v *settings.Values) error {
	options, err := plannedOptions(v)
	if err != nil {
		return err
	}
	shards := options.DataShards
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	arenas, heap := 0, 0
	for i, times := range []int{1, shards} {
		p, err := broker.PlanPools(options, i)
		if err != nil {
			return tooSmall(v, err)
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

// printPools prints pools under their sum, which it returns.
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

// fits is an error if the pools of a data shard do not fit its arena.
func fits(v *settings.Values) error {
	options, err := plannedOptions(v)
	if err != nil {
		return err
	}
	if _, err := broker.PlanPools(options, 1); err != nil {
		return tooSmall(v, err)
	}
	return nil
}

func tooSmall(v *settings.Values, err error) error {
	return fmt.Errorf("the pools of a shard do not fit its memory: %w; give it a larger --arena than %s, or a smaller --message-max-bytes than %d or --partitions-max than %d (--print-memory shows what each takes)",
		err, &v.Arena, v.MessageBytesMax, v.PartitionsMax)
}

// plannedOptions are the broker's options as far as they decide about memory, with as
// many data shards as would be started here.
func plannedOptions(v *settings.Values) (broker.Options, error) {
	allowed, err := allowedCPUs()
	if err != nil {
		return broker.Options{}, err
	}
	return v.Options(v.DataShards(len(allowed))), nil
}
