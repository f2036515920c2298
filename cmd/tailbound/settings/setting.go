package settings

import (
	"strings"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/shard"
)

// setting is a row of the table: all there is to know of one setting.
//
// Invariants, held by the tests: names are unique; a name of Kafka is one that
// DescribeConfigs shows; a default is a value that is accepted.
type setting struct {
	// name is the flag's and the key's in the file.
	name string
	// kafka is the name under which DescribeConfigs shows it; "" if Kafka has no
	// such configuration.
	kafka string
	// doc is the sentence of --help and of the example. {bounds} and {kafka} in it
	// are replaced.
	doc string
	// field is the type, the place in Values, the default and the bounds.
	field field
	// refusal is what an error says after a value that is out of bounds; {bounds} in
	// it is replaced. "": "it is {bounds}".
	refusal string
	// required is the error of a start without a value; "": it may be left open.
	required string
	// check is the error for a value that the bounds alone cannot judge: text in a
	// form of its own, or a value that contradicts another setting. nil: all is said.
	check func(*Values) error
	// reloads: a running broker acts on a new value when it reads its configuration
	// again. The others need a restart.
	reloads bool
	// set gives the broker's options the value. nil: the value is acted on by serve.
	set func(*Values, *broker.Options)
}

const variablePrefix = "TAILBOUND_"

// variable is the name of the environment variable.
func (s *setting) variable() string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// usage is the sentence of --help and of the example.
func (s *setting) usage() string {
	return strings.NewReplacer("{bounds}", s.field.bounds(), "{kafka}", s.kafka).Replace(s.doc)
}

// wrong is everything that is wrong with a value.
func (s *setting) wrong(v *Values) (all []string) {
	if value, outside := s.field.outside(v); outside {
		refusal := s.refusal
		if refusal == "" {
			refusal = "it is {bounds}"
		}
		all = append(all, value+": "+strings.ReplaceAll(refusal, "{bounds}", s.field.bounds()))
	}
	if s.check != nil {
		if err := s.check(v); err != nil {
			all = append(all, err.Error())
		}
	}
	return all
}

// Options are the broker's options that follow from settings, with so many data
// shards. Not in them is what is found out of the machine: listeners and nodes (of
// which only the number is right), CPUs, the data directory, and sizes that depend on
// its disk.
func (v *Values) Options(shards int) broker.Options {
	options := broker.Defaults()
	options.DataShards, options.Nodes = shards, make([]shard.Node, shards+1)
	for i := range table {
		if set := table[i].set; set != nil {
			set(v, &options)
		}
	}
	return options
}
