package cluster

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// configSet is the configurations that were set for one broker or one group.
type configSet[Key cmp.Ordered] struct {
	key     Key
	configs []Config // sorted by name, each name once; not empty
}

// configSets are sorted by key, each key once.
type configSets[Key cmp.Ordered] []configSet[Key]

// of returns the configurations that were set for key, or nil.
func (s configSets[Key]) of(key Key) []Config {
	if i, ok := s.at(key); ok {
		return s[i].configs
	}
	return nil
}

// put replaces the configurations of key. An empty list removes the key.
func (s *configSets[Key]) put(key Key, configs []Config) {
	i, ok := s.at(key)
	switch {
	case ok && len(configs) == 0:
		*s = slices.Delete(*s, i, i+1)
	case ok:
		(*s)[i].configs = configs
	case len(configs) > 0:
		*s = slices.Insert(*s, i, configSet[Key]{key, configs})
	}
}

func (s configSets[Key]) at(key Key) (int, bool) {
	return slices.BinarySearchFunc(s, key, func(set configSet[Key], key Key) int { return cmp.Compare(set.key, key) })
}

func (s configSets[Key]) equal(other configSets[Key]) bool {
	return slices.EqualFunc(s, other, func(left, right configSet[Key]) bool {
		return left.key == right.key && slices.Equal(left.configs, right.configs)
	})
}

// configIn returns the value of one configuration in a list sorted by name.
func configIn(configs []Config, name string) (value string, ok bool) {
	i, ok := slices.BinarySearchFunc(configs, name, func(config Config, name string) int { return cmp.Compare(config.Name, name) })
	if !ok {
		return "", false
	}
	return configs[i].Value, true
}

// numberOf returns a value of type ConfigInt or ConfigLong as a number. Values
// are checked when they are set, so parsing one cannot fail; an empty value is 0.
func numberOf(value string) int64 {
	number, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return number
}
