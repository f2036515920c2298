package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/shard"
)

// listener is an address at which all nodes are reached, each at a port of its own that
// is counted from it.
type listener struct {
	settings.Listener
	host  string       // once bound
	bound []bound      // of each node
	nodes []shard.Node // as clients of this listener see them
}

// newListeners are the listeners of the settings, not bound.
func newListeners(v *settings.Values) (all []*listener, err error) {
	parsed, listenErr, advertiseErr := v.Listeners(v.Shards)
	if err := errors.Join(listenErr, advertiseErr); err != nil {
		return nil, err
	}
	for _, l := range parsed {
		all = append(all, &listener{Listener: l})
	}
	return all, nil
}

// bind listens on so many ports, one for each node.
func (l *listener) bind(nodes int) (err error) {
	if l.host, l.bound, err = listenAll(l.Listen, nodes); err != nil {
		return err
	}
	l.nodes, err = advertised(l.Advertise, l.host, l.bound)
	return err
}

// bound is a listening socket.
type bound struct {
	fd   int
	port int
}

// listenAll binds one port for each node, counted from that of hostPort, before any
// request is served. Port 0 picks ports that are free.
func listenAll(hostPort string, nodes int) (host string, all []bound, err error) {
	host, port, err := settings.SplitPort(hostPort, nodes)
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

// resolve is an address of a host, one of IPv4 if there is one; "" is every address.
func resolve(host string) (netip.Addr, error) {
	if host == "" {
		return netip.IPv6Unspecified(), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, nil
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
	addr, _ := netip.AddrFromSlice(ips[0])
	return addr, nil
}

// freePort is a port from which so many may be free.
func freePort(addr netip.Addr, nodes int) (int, error) {
	sockets, err := bindRun(addr, 0, 1)
	if err != nil {
		return 0, err
	}
	unix.Close(sockets[0].fd)
	return min(sockets[0].port, 65535-nodes), nil
}

// bindRun binds n successive ports, or none. first 0 is any free port.
func bindRun(addr netip.Addr, first, n int) (all []bound, err error) {
	for i := range n {
		port := first
		if first != 0 {
			port += i
		}
		socket, err := bindOne(addr, port)
		if err != nil {
			for _, bound := range all {
				unix.Close(bound.fd)
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
		all = append(all, socket)
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
	link, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(link.Index), nil
}

// bindOne binds and listens on one port.
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
	// Accepted sockets inherit it: an answer leaves as soon as it is written.
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

// advertised are the nodes as clients are told of them.
func advertised(advertise, host string, all []bound) ([]shard.Node, error) {
	name, port, err := settings.SplitAdvertise(advertise, len(all))
	if err != nil {
		return nil, fmt.Errorf("--advertise: %w", err)
	}
	if name != "" {
		host = name
	}
	if host, err = advertisedHost(host); err != nil {
		return nil, err
	}
	nodes := make([]shard.Node, len(all))
	for i, socket := range all {
		nodes[i] = shard.Node{ID: int32(i), Host: host, Port: int32(socket.port)}
		if port != 0 {
			nodes[i].Port = int32(port + i)
		}
	}
	return nodes, nil
}

// advertisedHost is the host that clients are told of a broker that listens on host:
// the name of this machine if that is all of its addresses.
func advertisedHost(host string) (string, error) {
	if host != "" && host != "0.0.0.0" && host != "::" {
		return host, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("--listen names no host that clients could connect to; give --advertise HOST (%w)", err)
	}
	return name, nil
}

// shutdown frees the ports now, even if another process still holds the sockets.
func (l *listener) shutdown() {
	for _, socket := range l.bound {
		unix.Shutdown(socket.fd, unix.SHUT_RDWR)
	}
}

// addTo adds a bound listener to those of the broker.
func (l *listener) addTo(options *broker.Options, single bool) {
	nodes, sockets := l.nodes, []int(nil)
	if single {
		nodes, sockets = []shard.Node{nodes[0], nodes[0]}, []int{-1}
	}
	for _, socket := range l.bound {
		sockets = append(sockets, socket.fd)
	}
	if len(options.Listeners) == 0 {
		options.Nodes = nodes
	} else {
		options.OtherNodes = append(options.OtherNodes, nodes)
	}
	options.Listeners = append(options.Listeners, sockets)
	if l.Name != "" {
		options.ListenerNames = append(options.ListenerNames, l.Name)
	}
}

// address is where the first node listens.
func (l *listener) address() string {
	return net.JoinHostPort(l.host, strconv.Itoa(l.bound[0].port))
}
