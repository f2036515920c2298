package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/shard"
)

// listener is one of the addresses, by a name of its own where there are
// several, at which all nodes are reached: each from its port on.
type listener struct {
	name      string // "" where it is the only one
	listen    string // HOST:PORT
	advertise string // HOST[:PORT]; "": what it listens on
	host      string // once bound
	bound     []bound
	nodes     []shard.Node // as clients see them who come by it
}

// parseListeners reads --listen and --advertise: each one value, or several of
// the form NAME=VALUE with commas between them.
func parseListeners(listen, advertise string, ports int) (all []*listener, listenErr, advertiseErr error) {
	for _, item := range strings.Split(listen, ",") {
		l := &listener{listen: strings.TrimSpace(item)}
		if name, value, ok := strings.Cut(l.listen, "="); ok {
			l.name, l.listen = name, value
			if !listenerName.MatchString(name) {
				return nil, fmt.Errorf("%q is no name for a listener: it is letters, digits and _", name), nil
			}
		}
		if _, _, err := splitPort(l.listen, ports); err != nil {
			return nil, err, nil
		}
		for _, o := range all {
			if o.name == l.name || o.name == "" || l.name == "" {
				return nil, fmt.Errorf("%q: of several listeners each has a name of its own: NAME=HOST:PORT,NAME=HOST:PORT", listen), nil
			}
		}
		all = append(all, l)
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
		i := slices.IndexFunc(all, func(l *listener) bool { return l.name == name })
		if i < 0 && name == "" {
			return nil, nil, fmt.Errorf("%q: it is NAME=HOST[:PORT] for each listener", advertise)
		} else if i < 0 {
			return nil, nil, fmt.Errorf("%q: there is no listener %q", advertise, name)
		}
		if all[i].advertise != "" {
			return nil, nil, fmt.Errorf("%q: twice for the same listener", advertise)
		}
		if _, _, err := splitAdvertise(value, ports); err != nil {
			return nil, nil, err
		}
		all[i].advertise = value
	}
	return all, nil, nil
}

var listenerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

// bind listens, for so many nodes.
func (l *listener) bind(nodes int) (err error) {
	if l.host, l.bound, err = listenAll(l.listen, nodes); err != nil {
		return err
	}
	l.nodes, err = advertised(l.advertise, l.host, l.bound)
	return err
}

// bound is a listening socket.
type bound struct {
	fd   int
	port int
}

// listenAll binds the ports from port on, one for each node, before anything
// is answered. Port 0 picks a free run of ports.
func listenAll(hostPort string, nodes int) (host string, all []bound, err error) {
	host, port, err := splitPort(hostPort, nodes)
	if err != nil {
		return "", nil, fmt.Errorf("--listen: %w", err)
	}
	addr, err := resolve(host)
	if err != nil {
		return "", nil, fmt.Errorf("--listen %s: %w", hostPort, err)
	}
	// A broker that was killed holds its ports a moment longer: the kernel
	// takes its rings apart after the process is gone.
	for until := time.Now().Add(3 * time.Second); ; {
		first := port
		if port == 0 {
			if first, err = freePort(addr, nodes); err != nil {
				return "", nil, err
			}
		}
		all, err = bindRun(addr, first, nodes)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(until) {
			return host, all, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func resolve(host string) (netip.Addr, error) {
	if host == "" {
		return netip.IPv6Unspecified(), nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a, nil
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return netip.Addr{}, fmt.Errorf("host %q: %w", host, err)
	}
	for _, ip := range ips {
		if v4 := ip.To4(); v4 != nil {
			return netip.AddrFrom4([4]byte(v4)), nil
		}
	}
	a, _ := netip.AddrFromSlice(ips[0])
	return a, nil
}

func freePort(addr netip.Addr, nodes int) (int, error) {
	b, err := bindRun(addr, 0, 1)
	if err != nil {
		return 0, err
	}
	unix.Close(b[0].fd)
	return min(b[0].port, 65535-nodes), nil
}

func bindRun(addr netip.Addr, first, n int) (all []bound, err error) {
	for i := range n {
		port := first
		if first != 0 {
			port += i
		}
		b, err := bindOne(addr, port)
		if err != nil {
			for _, b := range all {
				unix.Close(b.fd)
			}
			what := ""
			if i > 0 {
				what = fmt.Sprintf(" of data shard %d (each has a port of its own, counted from --listen's)", i)
			}
			at := netip.AddrPortFrom(addr, uint16(port))
			switch {
			case errors.Is(err, unix.EADDRINUSE):
				return nil, fmt.Errorf("port %d%s is taken by another process (see: ss -ltnp 'sport = :%d'); choose other ports with --listen HOST:PORT: %w", port, what, port, err)
			case errors.Is(err, unix.EADDRNOTAVAIL):
				return nil, fmt.Errorf("listening on %s: this machine has no such address; --listen is where the broker listens, --advertise what clients are told: %w", at, err)
			case errors.Is(err, unix.EACCES):
				return nil, fmt.Errorf("listening on %s%s: ports below %s are not for every user: %w", at, what, privilegedPorts(), err)
			}
			return nil, fmt.Errorf("listening on %s%s: %w", at, what, err)
		}
		all = append(all, b)
	}
	return all, nil
}

// privilegedPorts is the first port that any user may listen on.
func privilegedPorts() string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return "1024"
	}
	return strings.TrimSpace(string(text))
}

// zoneID is the number of the interface that a link-local address names.
func zoneID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func bindOne(addr netip.Addr, port int) (bound, error) {
	family := unix.AF_INET6
	var sa unix.Sockaddr
	if addr.Is4() {
		family = unix.AF_INET
		sa = &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
	} else {
		zone, err := zoneID(addr.Zone())
		if err != nil {
			return bound{}, err
		}
		sa = &unix.SockaddrInet6{Port: port, ZoneId: zone, Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == unix.EAFNOSUPPORT && addr.IsUnspecified() {
		return bindOne(netip.IPv4Unspecified(), port)
	}
	if err != nil {
		return bound{}, err
	}
	fail := func(err error) (bound, error) {
		unix.Close(fd)
		return bound{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fail(err)
	}
	// Accepted sockets inherit it: answers leave when they are written.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fail(err)
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fail(err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fail(err)
	}
	if err := unix.Listen(fd, 1024); err != nil {
		return fail(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fail(err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		port = a.Port
	case *unix.SockaddrInet6:
		port = a.Port
	}
	return bound{fd, port}, nil
}
