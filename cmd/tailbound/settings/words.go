package settings

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/netring"
)

// Listener is an address at which all nodes are reached, each at a port of its own
// that is counted from it.
type Listener struct {
	Name      string // "" if it is the only one
	Listen    string // HOST:PORT
	Advertise string // HOST[:PORT]; "": as it listens
}

// Listeners are the listeners of --listen and --advertise, for so many data shards.
func (v *Values) Listeners(shards int) (all []Listener, listenErr, advertiseErr error) {
	return ParseListeners(v.Listen, v.Advertise, v.Ports(shards))
}

// listeners is Listeners for the check of values: with the number of data shards that
// was set, and with one port if none was, as that depends on the machine.
func (v *Values) listeners() (all []Listener, listenErr, advertiseErr error) {
	return v.Listeners(min(max(v.Shards, 0), shardsMax))
}

var listenerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

// ParseListeners reads --listen and --advertise: each one value, or several of the form
// NAME=VALUE with commas between them.
func ParseListeners(listen, advertise string, ports int) (all []Listener, listenErr, advertiseErr error) {
	for _, item := range strings.Split(listen, ",") {
		listener := Listener{Listen: strings.TrimSpace(item)}
		if name, value, ok := strings.Cut(listener.Listen, "="); ok {
			listener.Name, listener.Listen = name, value
			if !listenerName.MatchString(name) {
				return nil, fmt.Errorf("%q is no name for a listener: it is letters, digits and _", name), nil
			}
		}
		if _, _, err := SplitPort(listener.Listen, ports); err != nil {
			return nil, err, nil
		}
		for _, other := range all {
			if other.Name == listener.Name || other.Name == "" || listener.Name == "" {
				return nil, fmt.Errorf("%q: of several listeners each has a name of its own: NAME=HOST:PORT,NAME=HOST:PORT", listen), nil
			}
		}
		all = append(all, listener)
	}
	if len(all) > broker.ListenersMax {
		return nil, fmt.Errorf("%d listeners; there may be %d", len(all), broker.ListenersMax), nil
	}
	if advertise == "" {
		return all, nil, nil
	}
	for _, item := range strings.Split(advertise, ",") {
		name, value := "", strings.TrimSpace(item)
		if n, v, ok := strings.Cut(value, "="); ok {
			name, value = n, v
		}
		i := slices.IndexFunc(all, func(listener Listener) bool { return listener.Name == name })
		if i < 0 && name == "" {
			return nil, nil, fmt.Errorf("%q: it is NAME=HOST[:PORT] for each listener", advertise)
		} else if i < 0 {
			return nil, nil, fmt.Errorf("%q: there is no listener %q", advertise, name)
		}
		if all[i].Advertise != "" {
			return nil, nil, fmt.Errorf("%q: twice for the same listener", advertise)
		}
		if _, _, err := SplitAdvertise(value, ports); err != nil {
			return nil, nil, err
		}
		all[i].Advertise = value
	}
	return all, nil, nil
}

// SplitAdvertise reads HOST[:PORT]. The port is 0 if there is none.
func SplitAdvertise(text string, ports int) (host string, port int, err error) {
	if strings.Count(text, ":") == 1 || strings.Contains(text, "]:") {
		return SplitPort(text, ports)
	}
	return strings.Trim(text, "[]"), 0, nil
}

// SplitPort reads HOST:PORT, the first of so many ports.
func SplitPort(text string, ports int) (host string, port int, err error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, fmt.Errorf("%q: it is HOST:PORT, such as 127.0.0.1:9092, or :9092 for every address of this machine", text)
	}
	port, err = strconv.Atoi(number)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: %s is not a port: it is 1 to 65535, or 0 for a free one", text, number)
	}
	if port+ports-1 > 65535 {
		return "", 0, fmt.Errorf("%q: %s is not a port from which %s can be counted", text, number, term.Plural(ports, "port"))
	}
	return host, port, nil
}

// ParseCPUs reads a list such as 1-3,5.
func ParseCPUs(text string) (all []int, err error) {
	if text == "" {
		return nil, nil
	}
	for _, word := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(word), "-")
		first, err := strconv.Atoi(from)
		last, lastErr := first, error(nil)
		if isRange {
			last, lastErr = strconv.Atoi(to)
		}
		if err != nil || lastErr != nil || first < 0 || last < first || last > 1023 {
			return nil, fmt.Errorf("%q: %q is not a CPU or a range such as 2-5", text, word)
		}
		for cpu := first; cpu <= last; cpu++ {
			all = append(all, cpu)
		}
	}
	return all, nil
}

// ParseAddressLimits reads addresses and their numbers of connections:
// 10.1.2.3:200,[::1]:20.
func ParseAddressLimits(list string) (all []netring.AddressLimit, err error) {
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		colon := strings.LastIndexByte(item, ':')
		address, conns := item, -1
		if colon >= 0 {
			address = strings.TrimSuffix(strings.TrimPrefix(item[:colon], "["), "]")
			if conns, err = strconv.Atoi(item[colon+1:]); err != nil {
				conns = -1
			}
		}
		ip, err := netip.ParseAddr(address)
		if err != nil || conns < 0 {
			return nil, fmt.Errorf("%q: it is an IP address, a colon and a number of connections, such as 10.1.2.3:200 or [::1]:20", item)
		}
		all = append(all, netring.AddressLimit{Address: ip.As16(), ConnsMax: conns})
	}
	return all, nil
}
