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

// Plan is a shard's memory, before anything is served.
type Plan struct {
	ArenaBytes int    // mapped and locked
	Arena      []Pool // carved out of it
	Heap       []Pool // tables of fixed size in Go's heap; none of them holds a record
}

// PlanPools carves a shard's arena and makes its tables as Open does, without a
// ring and a directory, and says what each took. Errors are those of Open.
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
	if err = s.newFlight(arena); err != nil {
		return Plan{}, err
	}
	if s.engine, err = engine.Plan(arena, o.Engine); err != nil {
		return Plan{}, err
	}
	s.makeTables()
	p := Plan{ArenaBytes: arena.Bytes()}
	left := arena.Bytes()
	for _, c := range arena.Carvings() {
		p.Arena = append(p.Arena, Pool{strings.TrimPrefix(c.What, "pool "), c.Count, c.Bytes / c.Count, c.Bytes})
		left -= c.Bytes
	}
	p.Arena = append(p.Arena, Pool{"alignment and what is left over", 1, left, left})
	p.Heap = tables("connections: ", s.net, nil)
	p.Heap = tables("log: ", s.engine, p.Heap)
	p.Heap = tables("", s, p.Heap)
	n, each := s.Timelines.Histograms()
	p.Heap = append(p.Heap, Pool{"histograms", n, each, n * each})
	slices.SortStableFunc(p.Heap, func(a, b Pool) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return p, nil
}

// tableBytesMin is how large a table has to be to be told of.
const tableBytesMin = 16 << 10

// tables adds the slices among a struct's fields, by their own names.
func tables(prefix string, of any, all []Pool) []Pool {
	var walk func(name string, v reflect.Value)
	walk = func(name string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				f := v.Type().Field(i)
				inner := f.Name
				if f.Anonymous {
					inner = name
				} else if name != "" {
					inner = name + "." + f.Name
				}
				walk(inner, v.Field(i))
			}
		case reflect.Slice:
			if each := int(v.Type().Elem().Size()); v.Cap()*each >= tableBytesMin {
				all = append(all, Pool{prefix + name, v.Cap(), each, v.Cap() * each})
			}
		}
	}
	walk("", reflect.ValueOf(of).Elem())
	return all
}
