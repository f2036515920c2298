package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/shard"
)

// printMemory prints what a broker with these settings takes, pool by pool.
func printMemory(out io.Writer, v *settings.Values) error {
	options, err := plannedOptions(v)
	if err != nil {
		return err
	}
	shards := options.DataShards
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	arenas, tables, heap := 0, 0, 0
	for i, times := range []int{1, shards} {
		plan, err := broker.PlanPools(options, i)
		if err != nil {
			return tooSmall(v, err)
		}
		if i == 0 {
			fmt.Fprintln(table, "control shard\t\t\t\t")
		} else {
			fmt.Fprintf(table, "\t\t\t\t\ndata shard (%d of them)\t\t\t\t\n", times)
		}
		n := printPools(table, "arena, mapped", plan.Arena)
		if n != plan.ArenaBytes {
			return fmt.Errorf("the terms of the arena sum to %d of its %d bytes", n, plan.ArenaBytes)
		}
		arenas += times * n
		tables += times * printPools(table, "tables, mapped", plan.Tables)
		heap += times * printPools(table, "tables in Go's heap", plan.Heap)
	}
	mail, err := broker.MailboxBytes(options)
	if err != nil {
		return err
	}
	fmt.Fprintln(table, "\t\t\t\t\nconsumer groups, if there are as many as may be\t\t\t\t")
	groups := printPools(table, "Go's heap, as groups come", broker.GroupPools(options))
	if err := printStart(table, v, options); err != nil {
		return err
	}
	program, err := programBytes()
	if err != nil {
		return err
	}
	fmt.Fprintln(table, "\t\t\t\t\nthe process\t\t\t\t")
	one := func(name string, bytes int) shard.Pool {
		return shard.Pool{Name: name, Count: 1, Each: bytes, Bytes: bytes}
	}
	printPools(table, "resident at most", []shard.Pool{
		one("arenas", arenas), one("tables, mapped", tables), one("tables in Go's heap", heap), one("mail between shards", mail), one("consumer groups", groups),
		one("garbage in Go's heap before a collection", max(heapRoomMin, heap+groups)),
		{Name: "rings, stacks and Go's runtime", Count: 1 + shards, Each: runtimeBytes, Bytes: (1 + shards) * runtimeBytes},
		one("the program", program),
	})
	return table.Flush()
}

// printStart prints what a start takes at most, which is after kill -9, when the journals are
// full.
func printStart(table *tabwriter.Writer, v *settings.Values, options broker.Options) error {
	journal := options.JournalBytes
	if v.DataDir != "" { // as it is there, which may be of other settings
		for shard := 0; ; shard++ {
			info, err := os.Stat(journalPath(v.DataDir, shard))
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return fmt.Errorf("data directory: %w", err)
			}
			journal = max(journal, int(info.Size()))
		}
	}
	mapped, heap, err := broker.RecoveryPools(options, journal)
	if err != nil {
		return tooSmall(v, err)
	}
	program, err := programBytes()
	if err != nil {
		return err
	}
	live := 0
	for _, pool := range heap {
		live += pool.Bytes
	}
	garbage := max(heapRoomMin, live)
	fmt.Fprintln(table, "\t\t\t\t\na start after kill -9, before any shard has its memory\t\t\t\t")
	printPools(table, "resident while it starts, at most", slices.Concat(mapped, heap, []shard.Pool{
		{Name: "garbage in Go's heap before a collection", Count: 1, Each: garbage, Bytes: garbage},
		{Name: "rings, stacks and Go's runtime", Count: 2 + options.DataShards, Each: runtimeBytes, Bytes: (2 + options.DataShards) * runtimeBytes},
		{Name: "the program", Count: 1, Each: program, Bytes: program},
	}))
	return nil
}

// runtimeBytes is what a shard, and the start itself, take besides what is planned: the
// queues of a ring, stacks of threads, spans and bitmaps of the heap.
const runtimeBytes = 8 << 20

// programBytes is the size of the running program's file, which becomes resident as it runs.
func programBytes() (int, error) {
	path, err := os.Executable()
	if err != nil {
		return 0, err
	}
	file, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return int(file.Size()), nil
}

// printPools prints pools under their sum, which it returns.
func printPools(table *tabwriter.Writer, title string, pools []shard.Pool) (sum int) {
	for _, pool := range pools {
		arithmetic := fmt.Sprintf("%d x %s", pool.Count, term.BinaryBytes(pool.Each))
		if pool.Count == 1 {
			arithmetic = ""
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t\n", pool.Name, arithmetic, term.BinaryBytes(pool.Bytes), pool.Bytes)
		sum += pool.Bytes
	}
	fmt.Fprintf(table, "%s\t\t= %s\t%d\t\n", title, term.BinaryBytes(sum), sum)
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

// tooSmall is what to do about pools that do not fit an arena, or an arena that does
// not fit the machine.
func tooSmall(v *settings.Values, err error) error {
	if errors.Is(err, broker.ErrArena) {
		return tooLarge(v, err)
	}
	return fmt.Errorf("the pools of a shard do not fit its memory: %w; give it a larger --arena than %s, or a smaller --message-max-bytes than %d or --partitions-max than %d (--print-memory shows what each takes)",
		err, &v.Arena, v.MessageBytesMax, v.PartitionsMax)
}

// tooLarge is what to do about an arena that the system does not map.
func tooLarge(v *settings.Values, err error) error {
	has := ""
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		has = ", which has " + term.BinaryBytes(int(info.Totalram)*int(info.Unit)) + " of memory"
	}
	step := "give them a smaller --arena"
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &limit) == nil && limit.Cur != unix.RLIM_INFINITY {
		step += ", or raise the limit of address space (ulimit -v)"
	}
	return fmt.Errorf("the memory of the data shards, --arena %s each, is more than this machine gives%s: %s (%w)", &v.Arena, has, step, err)
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
