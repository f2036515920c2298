package shard

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
)

// Pool is one term of the sum that is a shard's memory: Count of Each bytes.
type Pool struct {
	Name  string
	Count int
	Each  int
	Bytes int // Count * Each, and what alignment costs
}

// Plan is a shard's memory before anything is served.
type Plan struct {
	ArenaBytes int    // mapped, and locked as it is used
	Arena      []Pool // allocated from it
	Tables     []Pool // of fixed size, mapped beside it in the same way; none of them has records
	Heap       []Pool // of fixed size too, in Go's heap
}

// PlanPools allocates a shard's memory as Open does, without a ring and a directory,
// and returns the size of each pool and table. Errors are those of Open.
func PlanPools(arena *mem.Arena, o Options) (Plan, error) {
	s := &Shard{o: o}
	var err error
	if s.net, err = netring.New(nil, arena, o.Net); err != nil {
		return Plan{}, err
	}
	if s.mailMem, err = newMailMemory(arena, o.MailBytes); err != nil {
		return Plan{}, err
	}
	if s.sessions, err = newSessions(arena, o.SessionsMax, o.SessionPartitionsMax, 0); err != nil {
		return Plan{}, err
	}
	if s.Flight, err = newFlight(arena, o.Shard); err != nil {
		return Plan{}, err
	}
	if s.engine, err = engine.Plan(arena, o.Engine); err != nil {
		return Plan{}, err
	}
	if err = s.makeTables(arena); err != nil {
		return Plan{}, err
	}
	plan := Plan{ArenaBytes: arena.Bytes()}
	for _, table := range arena.Tables() {
		plan.Tables = append(plan.Tables, Pool{table.What, table.Count, table.Bytes / table.Count, table.Bytes})
	}
	left := arena.Bytes()
	for _, allocation := range arena.Allocations() {
		plan.Arena = append(plan.Arena, Pool{strings.TrimPrefix(allocation.What, "pool "), allocation.Count, allocation.Bytes / allocation.Count, allocation.Bytes})
		left -= allocation.Bytes
	}
	plan.Arena = append(plan.Arena, Pool{"alignment and what is left over", 1, left, left})
	plan.Heap = tables(arena, "connections: ", s.net, nil)
	plan.Heap = tables(arena, "log: ", s.engine, plan.Heap)
	plan.Heap = tables(arena, "", s, plan.Heap)
	n, each := s.Timelines.Histograms()
	plan.Heap = append(plan.Heap, Pool{"histograms", n, each, n * each})
	for _, pools := range [][]Pool{plan.Tables, plan.Heap} {
		slices.SortStableFunc(pools, func(a, b Pool) int { return cmp.Compare(b.Bytes, a.Bytes) })
	}
	return plan, nil
}

// tableBytesMin is the size of the smallest table that is listed.
const tableBytesMin = 16 << 10

// tables appends the slices in a struct that are in Go's heap, by the names of their fields.
func tables(arena *mem.Arena, prefix string, of any, all []Pool) []Pool {
	var walk func(name string, value reflect.Value)
	walk = func(name string, value reflect.Value) {
		switch value.Kind() {
		case reflect.Struct:
			for i := range value.NumField() {
				field := value.Type().Field(i)
				inner := field.Name
				if field.Anonymous {
					inner = name
				} else if name != "" {
					inner = name + "." + field.Name
				}
				walk(inner, value.Field(i))
			}
		case reflect.Slice:
			if each := int(value.Type().Elem().Size()); value.Cap()*each >= tableBytesMin && !arena.Owns(value.UnsafePointer()) {
				all = append(all, Pool{prefix + name, value.Cap(), each, value.Cap() * each})
			}
		}
	}
	walk("", reflect.ValueOf(of).Elem())
	return all
}
