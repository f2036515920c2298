package settings

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// field is the type of a setting: where its value is, its default and its bounds.
type field interface {
	// define adds a flag whose variable is the value's place, set to the default.
	define(flags *pflag.FlagSet, name, usage string, v *Values)
	// bounds is what is accepted, in words: "1 to 8", "at least 64MiB", "text or
	// json"; "" if there are none.
	bounds() string
	// outside is whether the value is out of bounds, and then the value as an error
	// shows it.
	outside(v *Values) (value string, outside bool)
}

// quantity is a number, a size or a duration.
type quantity[T int | term.ByteSize | time.Duration] struct {
	at       func(*Values) *T
	initial  T
	min, max T    // max 0: no upper bound; both 0: no bounds, the row's check decides
	zero     bool // 0 is accepted too
	// powerOfTwo accepts nothing but powers of two.
	powerOfTwo bool
	// inBytes shows a size in an error in bytes, as Kafka does.
	inBytes bool
}

func (q quantity[T]) define(flags *pflag.FlagSet, name, usage string, v *Values) {
	switch at := any(q.at(v)).(type) {
	case *int:
		flags.IntVar(at, name, int(q.initial), usage)
	case *time.Duration:
		flags.DurationVar(at, name, time.Duration(q.initial), usage)
	case *term.ByteSize:
		*at = term.ByteSize(q.initial)
		flags.Var(at, name, usage)
	}
}

func (q quantity[T]) bounds() string {
	switch {
	case q.max != 0:
		return q.bound(q.min) + " to " + q.bound(q.max)
	case q.min != 0:
		return "at least " + q.bound(q.min)
	}
	return ""
}

// bound is a bound in words. Sizes have their largest unit, 4KiB where a value is
// printed as 4096.
func (q quantity[T]) bound(n T) string {
	if size, ok := any(n).(term.ByteSize); ok && !q.inBytes {
		return strings.ReplaceAll(term.BinaryBytes(int(size)), " ", "")
	}
	return q.show(n)
}

func (q quantity[T]) outside(v *Values) (value string, outside bool) {
	n := *q.at(v)
	switch {
	case n == 0 && q.zero, q.min == 0 && q.max == 0:
		return "", false
	case n < q.min, q.max != 0 && n > q.max, q.powerOfTwo && n&(n-1) != 0:
		return q.show(n), true
	}
	return "", false
}

func (q quantity[T]) show(n T) string {
	switch n := any(n).(type) {
	case time.Duration:
		return n.String()
	case term.ByteSize:
		if !q.inBytes {
			return n.String()
		}
	}
	return strconv.FormatInt(int64(n), 10)
}

// text is any text, or one of a few words.
type text struct {
	at      func(*Values) *string
	initial string
	words   []string // nil: any text
}

func (t text) define(flags *pflag.FlagSet, name, usage string, v *Values) {
	flags.StringVar(t.at(v), name, t.initial, usage)
}

func (t text) bounds() string { return strings.Join(t.words, " or ") }

func (t text) outside(v *Values) (value string, outside bool) {
	word := *t.at(v)
	return strconv.Quote(word), len(t.words) > 0 && !slices.Contains(t.words, word)
}

// toggle is true or false.
type toggle struct {
	at      func(*Values) *bool
	initial bool
}

func (t toggle) define(flags *pflag.FlagSet, name, usage string, v *Values) {
	flags.BoolVar(t.at(v), name, t.initial, usage)
}

func (t toggle) bounds() string { return "true or false" }

func (t toggle) outside(*Values) (value string, outside bool) { return "", false }
