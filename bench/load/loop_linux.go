package load

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	outBytes       = 64 << 10 // small requests are gathered up to this for one send
	inBytes        = 256 << 10
	templateCount  = 4   // per connection: no two neighbours carry the same bytes
	templatesMax   = 256 // of one connection with keys: one for each partition, at most
	fetchWaitMS    = 500
	readBytesMax   = 256 << 10 // of one connection in one round of the loop
	reconnectAfter = 10e6      // ns
)

// A link is one producing connection: send(); await answer(); record().
type link struct {
	lane
	id         int
	topic      string
	node       string
	fd         int // -1: not connected
	retryAt    int64
	partitions []int32
	templates  []*batch
	byKey      bool   // template i is of partition i
	turn       int    // of templates and partitions
	cursor     uint64 // next to be put on the wire; the lane's tail, but after a reconnect
	sequence   int32  // correlation of the next request
	expected   int32  // of the next answer
	out        []byte
	body       []byte // the batch after out, sent by reference
	sentBytes  int    // of out and body together
	in         []byte
	inFill     int
	wantsWrite bool

	relay   []int64 // of a hop behind the first: intended instants that wait to be passed on
	relayed int     // of them, passed on
	onward  bool
	acked   numbers // with Verify
	seen    numbers
}

// A tail is one consuming connection: fetch(); await answer(); fetch() again.
type tail struct {
	id         int
	topic      string
	node       string
	fd         int
	retryAt    int64
	group      *group
	hop        int
	first      bool // of its group: what Verify looks at
	partitions []int32
	slots      []int32 // of a partition, in partitions
	offsets    []int64
	session    session
	sequence   int32
	out        []byte
	in         []byte
	inFill     int
	fetchAt    int64 // never: a fetch is under way
	behind     bool  // it has not yet come near the tail
}

// A group is the tails of one Reader.
type group struct {
	Reader
	age      *series
	bytes    int64
	arrived  int64 // batches of the window
	caughtUp int64
	behind   int // of its tails
	begin    int64
}

type loop struct {
	o        Options
	hooks    Hooks
	acks     int16
	epoll    int
	links    []*link // of the first topic, then of the hops behind it
	first    int     // how many are of the first topic
	tails    []*tail
	groups   []*group
	hops     []*series // [h]: age behind hop h+1
	origin   time.Time
	originNS int64
	start    int64
	from, to int64 // the window
	now      int64
	fetch    int32 // bytes of one answer

	latency, lag *series
	acknowledged int64
	meant        int64 // batches of the window that were acknowledged
	errors       map[string]int64
	errorCount   int64
	duplicates   int64
	reconnects   int64
	readBytes    int64

	packer     *packer
	nextEnd    int64
	lastEnd    int64
	beforeThat Interval // totals at the last interval's end
}

// Now is CLOCK_MONOTONIC, which stamps are of: it is one for all processes.
func Now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // there is no Linux without
	return ts.Nano()
}

// Run drives one phase. It takes over the calling goroutine's thread and turns
// the process's garbage collection off: it is meant to be a process's only
// work.
func Run(o Options, hooks Hooks) (*Result, error) {
	l, err := newLoop(o, hooks)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(2 << 30)
	// The default slack of 50 us would be in every latency.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(l.epoll)
	defer l.disconnect()
	if err := l.connect(); err != nil {
		return nil, err
	}
	return l.run()
}

func newLoop(o Options, hooks Hooks) (*loop, error) {
	o.Of, o.Hops = max(o.Of, 1), max(o.Hops, 1)
	l := &loop{o: o, hooks: hooks, acks: -1, origin: time.Now(), originNS: Now(), latency: newSeries(Produce), lag: newSeries(Lag), errors: map[string]int64{}}
	switch o.Acks {
	case "", "all", "-1":
	case "0", "1":
		l.acks = int16(o.Acks[0] - '0')
	default:
		return nil, fmt.Errorf("acks %q: it is all, 1 or 0", o.Acks)
	}
	if _, ok := codecs[o.Codec]; !ok {
		return nil, fmt.Errorf("codec %q: it is %v", o.Codec, slices.Sorted(maps.Keys(codecs))[1:])
	}
	if err := o.Arrivals.Check(); err != nil {
		return nil, err
	}
	switch {
	case o.Connections < 1 || o.Inflight < 1 || o.Records < 1 || o.Partitions < 1:
		return nil, errors.New("connections, inflight, records and partitions are at least 1")
	case o.Partitions < o.Of:
		return nil, fmt.Errorf("%d processes share %d partitions", o.Of, o.Partitions)
	case o.Hops > 1 && (o.Reconnect || o.Verify || l.acks == 0):
		return nil, errors.New("a chain is driven without reconnecting, without verifying, and with acknowledgements")
	case o.Verify && l.acks == 0:
		return nil, errors.New("with acks=0 nothing is promised that could be verified")
	case o.KeyBytes > 0 && o.Keys < 1:
		return nil, errors.New("how many keys are there?")
	}
	readers := slices.Clone(o.Readers)
	if (o.Consumer || o.Verify) && !slices.ContainsFunc(readers, Reader.prompt) {
		readers = append(readers, Reader{Name: EndToEnd, Count: 1})
	}
	if o.Hops > 1 && !slices.ContainsFunc(readers, Reader.prompt) {
		readers = append(readers, Reader{Name: Chain, Count: 1})
	}
	for _, r := range readers {
		l.groups = append(l.groups, &group{Reader: r, age: newSeries(cmp.Or(r.Name, EndToEnd)), caughtUp: -1})
	}
	for h := range o.Hops - 1 {
		l.hops = append(l.hops, newSeries(fmt.Sprintf("hop-%d", h+1)))
	}
	return l, nil
}

func (l *loop) config() map[string]string {
	c := maps.Clone(l.o.TopicConfig)
	if l.o.Keep > 0 {
		if c == nil {
			c = map[string]string{}
		}
		c["retention.bytes"], c["segment.bytes"] = strconv.FormatInt(l.o.Keep, 10), strconv.FormatInt(l.o.Keep/2, 10)
	}
	return c
}

// connect makes the topics and the connections. Each connection goes to one
// leader and serves its own share of that leader's partitions.
func (l *loop) connect() error {
	tails := 0
	for hop := range l.o.Hops {
		topic := topicOf(l.o.Topic, hop)
		nodes, owned, err := l.place(topic)
		if err != nil {
			return err
		}
		if err := l.produceTo(hop, topic, nodes, owned); err != nil {
			return err
		}
		groups := l.groups
		if hop < l.o.Hops-1 { // a hop that only passes on
			groups = []*group{{Reader: Reader{Count: 1}}}
		}
		for _, g := range groups {
			tails += g.Count * len(nodes)
		}
		l.fetch = 4 << 20
		if tails > 8 {
			l.fetch = 1 << 20 // of fifty readers the buffers are what the machine has to keep
		}
		for _, g := range groups {
			for copy := range g.Count {
				for _, node := range nodes {
					if err := l.readFrom(hop, copy == 0, topic, node, owned[node], g); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// place gives the leaders, and of each the partitions that are this process's.
func (l *loop) place(topic string) (nodes []string, owned map[string][]int32, err error) {
	addrs, err := leaders(l.o.Bootstrap, topic, l.o.Partitions, l.config())
	if err != nil {
		return nil, nil, err
	}
	owned = map[string][]int32{}
	for p, a := range addrs {
		if p%l.o.Of != l.o.Index {
			continue
		}
		if owned[a] == nil {
			nodes = append(nodes, a)
		}
		owned[a] = append(owned[a], int32(p))
	}
	if len(nodes) > l.o.Connections {
		return nil, nil, fmt.Errorf("%d connections for %d leaders", l.o.Connections, len(nodes))
	}
	return nodes, owned, nil
}

func (l *loop) produceTo(hop int, topic string, nodes []string, owned map[string][]int32) (err error) {
	for c := range l.o.Connections {
		node := nodes[c%len(nodes)]
		sharing := (l.o.Connections - c%len(nodes) + len(nodes) - 1) / len(nodes)
		k := &link{id: len(l.links), topic: topic, node: node, onward: hop > 0, out: make([]byte, 0, outBytes+4096), in: make([]byte, inBytes)}
		for i, p := range owned[node] {
			if i%sharing == c/len(nodes) {
				k.partitions = append(k.partitions, p)
			}
		}
		if k.partitions == nil { // fewer partitions than connections: share one
			k.partitions = []int32{owned[node][c/len(nodes)%len(owned[node])]}
		}
		k.inflight = make([]request, l.o.Inflight)
		if err := l.fillTemplates(k); err != nil {
			return err
		}
		if k.fd, err = l.dial(node, k.id); err != nil {
			return err
		}
		l.links = append(l.links, k)
		if hop == 0 {
			l.first++
		}
	}
	return nil
}

// fillTemplates makes a link's batches: a few that go to any partition, or, with
// keys, one for each partition that some key belongs to.
func (l *loop) fillTemplates(k *link) error {
	s := shape{records: l.o.Records, recordBytes: l.o.RecordBytes, codec: codecs[l.o.Codec]}
	seed := uint64(l.o.Index)<<32 | uint64(k.id)<<16
	if l.o.KeyBytes == 0 {
		for i := range templateCount {
			t, err := newBatch(s, seed+uint64(i))
			if err != nil {
				return err
			}
			k.templates = append(k.templates, t)
		}
		return nil
	}
	k.byKey = true
	var used []int32
	for _, p := range k.partitions {
		if s.key = keysOf(p, l.o.Partitions, l.o.Keys, l.o.KeyBytes); s.key == nil || len(used) == templatesMax {
			continue
		}
		t, err := newBatch(s, seed+uint64(p))
		if err != nil {
			return err
		}
		k.templates, used = append(k.templates, t), append(used, p)
	}
	if used == nil {
		return fmt.Errorf("none of %d keys belongs to partitions %v: more keys, or fewer partitions", l.o.Keys, k.partitions)
	}
	k.partitions = used
	return nil
}

func (l *loop) readFrom(hop int, first bool, topic, node string, partitions []int32, g *group) (err error) {
	t := &tail{
		id: -1 - len(l.tails), topic: topic, node: node, group: g, hop: hop, first: first, partitions: partitions, behind: g.AfterNS > 0,
		slots: make([]int32, l.o.Partitions), offsets: make([]int64, len(partitions)), session: newSession(len(partitions)), in: make([]byte, 2*l.fetch+inBytes),
	}
	if t.behind {
		g.behind++
	}
	for i := range t.slots {
		t.slots[i] = -1
	}
	for i, p := range partitions {
		t.slots[p] = int32(i)
	}
	if l.o.Filled {
		if t.offsets, err = ends(node, topic, partitions); err != nil {
			return err
		}
	}
	if t.fd, err = l.dial(node, t.id); err != nil {
		return err
	}
	l.tails = append(l.tails, t)
	return nil
}

func (l *loop) disconnect() {
	for _, k := range l.links {
		_ = unix.Close(k.fd)
	}
	for _, t := range l.tails {
		_ = unix.Close(t.fd)
	}
}

// dial connects a raw socket and puts it, nonblocking, under epoll as number id:
// links from 0 up, tails from -1 down.
func (l *loop) dial(addr string, id int) (int, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return -1, err
	}
	var sa unix.Sockaddr
	family := unix.AF_INET
	if ip := tcp.IP.To4(); ip != nil {
		sa = &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip)}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: tcp.Port, Addr: [16]byte(tcp.IP.To16())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// No answer at all is no answer within a second: the others wait.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
	if err := unix.Connect(fd, sa); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect %s: %w", addr, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, err
	}
	return fd, unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(id)})
}

func (l *loop) clock() int64 { return l.originNS + int64(time.Since(l.origin)) }

// begin waits for the other processes of the load, and plans the schedule.
func (l *loop) begin() (err error) {
	l.start = l.clock() + 20e6
	if l.hooks.Ready != nil {
		if l.start, err = l.hooks.Ready(); err != nil {
			return err
		}
	}
	l.from = l.start + l.o.WarmupNS
	l.to = l.from + l.o.WindowNS
	for i, k := range l.links {
		k.Schedule = Schedule{Start: l.start, End: l.to, Arrivals: l.o.Arrivals, Lanes: int64(l.first * l.o.Of), Lane: int64(i*l.o.Of + l.o.Index)}
		if l.o.Rate > 0 {
			k.Interval = 1e9 / l.o.Rate
		}
	}
	for _, t := range l.tails {
		t.fetchAt, t.group.begin = l.start+t.group.AfterNS, l.start+t.group.AfterNS
		if t.group.AfterNS == 0 {
			t.fetchAt = 0
		}
	}
	all := []*series{l.latency, l.lag}
	for _, g := range l.groups {
		all = append(all, g.age)
	}
	l.packer = startPacker(append(all, l.hops...), l.hooks.Interval)
	l.lastEnd, l.nextEnd = l.from, never
	if l.o.IntervalNS > 0 {
		l.nextEnd = l.from + l.o.IntervalNS
	}
	return nil
}

func (l *loop) run() (*Result, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	var first, last Usage
	events := make([]unix.EpollEvent, len(l.links)+len(l.tails))
	for {
		l.now = l.clock()
		if first.at == 0 && l.now >= l.from {
			first = ReadUsage(l.o.ServerPID)
		}
		if l.now >= l.to {
			if last.at == 0 {
				last = ReadUsage(l.o.ServerPID)
			}
			if l.finished() || l.now >= l.to+l.o.DrainNS {
				break
			}
		}
		if l.now >= l.nextEnd && l.now < l.to {
			if l.packer.rotate(l.interval(l.now)) {
				l.lastEnd = l.now
			}
			for l.nextEnd <= l.now {
				l.nextEnd += l.o.IntervalNS
			}
		}
		wake := min(l.to+l.o.DrainNS, l.nextEnd)
		if last.at == 0 {
			wake = min(l.to, l.nextEnd)
		} else {
			wake = min(wake, l.now+10e6) // what is waited for may have arrived in another way
		}
		for _, k := range l.links {
			at, err := l.drive(k)
			if err != nil {
				return nil, err
			}
			wake = min(wake, at)
		}
		for _, t := range l.tails {
			at, err := l.driveTail(t)
			if err != nil {
				return nil, err
			}
			wake = min(wake, at)
		}
		n, err := l.wait(events, wake-l.clock())
		if err != nil {
			return nil, err
		}
		for i := range n {
			if err := l.handle(int(events[i].Fd), events[i].Events); err != nil {
				return nil, err
			}
		}
	}
	return l.result(first, last), nil
}

// interval is what was counted since the last one; the next begins at its end.
func (l *loop) interval(end int64) Interval {
	now := Interval{Requests: l.acknowledged, ReadBytes: l.readBytes, Errors: l.errorCount}
	for _, k := range l.links {
		now.Held += k.heldSends
	}
	b := l.beforeThat
	l.beforeThat = now
	return Interval{StartNS: l.lastEnd - l.from, EndNS: end - l.from, Requests: now.Requests - b.Requests, ReadBytes: now.ReadBytes - b.ReadBytes, Errors: now.Errors - b.Errors, Held: now.Held - b.Held}
}

// drive sends what a link has to send; it says when time alone brings more.
func (l *loop) drive(k *link) (wake int64, err error) {
	if k.fd < 0 {
		if l.now < k.retryAt {
			return k.retryAt, nil
		}
		if k.fd, err = l.dial(k.node, k.id); err != nil {
			k.retryAt = l.clock() + reconnectAfter
			return k.retryAt, nil
		}
		k.cursor = k.head // what was not answered goes again
		k.expected = k.sequence
	}
	if err := l.broken(k, l.pump(k)); err != nil {
		return 0, err
	}
	if k.fd < 0 {
		return k.retryAt, nil
	}
	if k.onward {
		return never, nil
	}
	return k.wakeAt(), nil
}

// broken decides about an error of a link's connection: with Reconnect it is a
// connection that will be made again.
func (l *loop) broken(k *link, err error) error {
	if err == nil || !l.o.Reconnect {
		return err
	}
	_ = unix.Close(k.fd)
	l.reconnects++
	k.fd, k.retryAt, k.wantsWrite = -1, l.clock()+reconnectAfter, false
	k.out, k.body, k.sentBytes, k.inFill = k.out[:0], nil, 0, 0
	k.hold()
	return nil
}

// wait sleeps for an event or timeoutNS. The thread sleeps in the kernel and
// does not spin: its core also belongs to the kernel's workers.
func (l *loop) wait(events []unix.EpollEvent, timeoutNS int64) (int, error) {
	ts := unix.NsecToTimespec(max(timeoutNS, 0))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return int(n), nil
}

func (l *loop) finished() bool {
	for _, k := range l.links {
		if !k.onward && !k.done() || k.onward && (k.head != k.tail || k.relayed < len(k.relay)) {
			return false
		}
	}
	for _, g := range l.groups {
		if g.prompt() && g.arrived < l.meant*int64(g.Count) {
			return false
		}
	}
	return true
}

func (l *loop) handle(id int, events uint32) error {
	if id < 0 {
		t := l.tails[-1-id]
		return l.brokenTail(t, l.receiveTail(t))
	}
	k := l.links[id]
	if events&unix.EPOLLOUT != 0 {
		l.now = l.clock()
		if err := l.pump(k); err != nil {
			return l.broken(k, err)
		}
	}
	if events&^uint32(unix.EPOLLOUT) != 0 {
		return l.broken(k, l.receive(k))
	}
	return nil
}

// pump sends what is due, until the bound, the socket or the schedule says no.
func (l *loop) pump(k *link) error {
	for {
		if len(k.out) == 0 {
			for len(k.out) < outBytes && k.body == nil && l.nextRequest(k) {
				l.assemble(k)
			}
			if len(k.out) == 0 {
				return l.writable(k, false)
			}
		}
		all, err := k.send()
		if err != nil {
			return err
		}
		l.now = l.clock()
		if !all {
			k.hold()
			return l.writable(k, true)
		}
		if l.acks == 0 {
			for k.head < k.cursor {
				l.done(k, 0)
			}
		}
	}
}

// nextRequest sees that there is one to be put on the wire: one to send again,
// one that is due, one to pass on.
func (l *loop) nextRequest(k *link) bool {
	if k.cursor < k.tail {
		return true
	}
	if k.onward {
		if k.relayed == len(k.relay) || k.full() {
			return false
		}
		k.put(request{intended: k.relay[k.relayed], number: uint32(k.sent)})
		if k.relayed++; k.relayed == len(k.relay) {
			k.relay, k.relayed = k.relay[:0], 0
		}
	} else {
		intended, lag, ok := k.take(l.now)
		if !ok {
			return false
		}
		if lag >= 0 && intended >= l.from {
			l.lag.record(lag)
		}
	}
	k.at64(k.tail - 1).partition = int32(k.turn % len(k.partitions))
	k.turn++
	return true
}

// assemble puts one request into out; a large batch stays where it is and goes
// by reference.
func (l *loop) assemble(k *link) {
	r := k.at64(k.cursor)
	k.cursor++
	t := k.templates[int(r.number)%len(k.templates)]
	if k.byKey {
		t = k.templates[r.partition]
	}
	t.stamp(uint16(k.id), r.number, r.intended)
	k.out = appendProduce(k.out, k.sequence, l.acks, k.topic, k.partitions[r.partition], len(t.bytes))
	k.sequence++
	if len(t.bytes) > 4096 {
		k.body = t.bytes
	} else {
		k.out = append(k.out, t.bytes...)
	}
}

// send writes out and body; all says whether the socket took everything.
func (k *link) send() (all bool, err error) {
	for {
		var v [2]unix.Iovec
		n := 0
		if k.sentBytes < len(k.out) {
			v[n].Base = &k.out[k.sentBytes]
			v[n].SetLen(len(k.out) - k.sentBytes)
			n++
		}
		if skip := max(k.sentBytes-len(k.out), 0); skip < len(k.body) {
			v[n].Base = &k.body[skip]
			v[n].SetLen(len(k.body) - skip)
			n++
		}
		if n == 0 {
			k.out, k.body, k.sentBytes = k.out[:0], nil, 0
			return true, nil
		}
		sent, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(k.fd), uintptr(unsafe.Pointer(&v[0])), uintptr(n))
		switch errno {
		case 0:
			k.sentBytes += int(sent)
		case unix.EINTR:
		case unix.EAGAIN:
			return false, nil
		default:
			return false, fmt.Errorf("send: %w", errno)
		}
	}
}

func (l *loop) writable(k *link, want bool) error {
	if k.wantsWrite == want {
		return nil
	}
	k.wantsWrite = want
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(k.id)}
	if want {
		ev.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, k.fd, &ev)
}

var errClosed = errors.New("the server closed the connection")

// fill reads once into in; 0 when nothing is there.
func fill(fd int, in []byte) (int, error) {
	n, err := unix.Read(fd, in)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("receive: %w", err)
	case n == 0:
		return 0, errClosed
	}
	return n, nil
}

// receive reads and records answers.
func (l *loop) receive(k *link) error {
	n, err := fill(k.fd, k.in[k.inFill:])
	if err != nil {
		return err
	}
	l.now = l.clock()
	k.inFill += n
	at := 0
	for k.inFill-at >= 4 {
		size := int(binary.BigEndian.Uint32(k.in[at:]))
		if size < 4 || size > inBytes-4 {
			return fmt.Errorf("an answer of %d bytes", size)
		}
		if k.inFill-at-4 < size {
			break
		}
		if err := l.answered(k, k.in[at+4:at+4+size]); err != nil {
			return err
		}
		at += 4 + size
	}
	copy(k.in, k.in[at:k.inFill])
	k.inFill -= at
	return nil
}

func (l *loop) answered(k *link, frame []byte) error {
	correlation, code, ok := produceAnswer(frame, k.topic)
	if !ok || k.head == k.tail || correlation != k.expected {
		return fmt.Errorf("answer %d of %d bytes where %d was next", correlation, len(frame), k.expected)
	}
	k.expected++
	l.done(k, code)
	return nil
}

// done is the end of the oldest request in flight.
func (l *loop) done(k *link, code int16) {
	r, _ := k.answer()
	if code != 0 {
		if r.intended >= l.from { // a topic that is new may still be on its way to its leaders
			l.fail("produce error code " + strconv.Itoa(int(code)))
		}
		return
	}
	if k.onward {
		return // its chain is not over
	}
	if l.now >= l.from && l.now < l.to {
		l.acknowledged++
	}
	if l.o.Verify {
		k.acked.add(r.number)
	}
	if r.intended >= l.from {
		l.meant++
		l.latency.record(l.now - r.intended + l.o.LingerNS)
	}
}

func (l *loop) fail(what string) {
	l.errors[what]++
	l.errorCount++
}

// driveTail asks for more when it is time to; it says when that is.
func (l *loop) driveTail(t *tail) (wake int64, err error) {
	if t.fd < 0 {
		if l.now < t.retryAt {
			return t.retryAt, nil
		}
		if t.fd, err = l.dial(t.node, t.id); err != nil {
			t.retryAt = l.clock() + reconnectAfter
			return t.retryAt, nil
		}
		t.inFill, t.fetchAt = 0, l.now
		t.session.begin()
	}
	if t.fetchAt > l.now {
		return t.fetchAt, nil
	}
	t.fetchAt = never
	return never, l.brokenTail(t, t.fetch(l.fetch))
}

func (l *loop) brokenTail(t *tail, err error) error {
	if err == nil || !l.o.Reconnect {
		return err
	}
	_ = unix.Close(t.fd)
	l.reconnects++
	t.fd, t.retryAt = -1, l.clock()+reconnectAfter
	return nil
}

func (t *tail) fetch(bytesMax int32) error {
	t.out = appendFetch(t.out[:0], t.sequence, t.topic, &t.session, t.partitions, t.offsets, fetchWaitMS, bytesMax, bytesMax/4)
	t.session.changed = t.session.changed[:0]
	t.sequence++
	for b := t.out; len(b) > 0; {
		n, err := unix.Write(t.fd, b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR: // requests are small: the socket has room at once
		case err != nil:
			return fmt.Errorf("send fetch: %w", err)
		default:
			b = b[n:]
		}
	}
	return nil
}

// receiveTail reads a piece of a fetch answer; with the last piece it records
// what came and says when to ask for more.
func (l *loop) receiveTail(t *tail) error {
	n, err := fill(t.fd, t.in[t.inFill:min(len(t.in), t.inFill+readBytesMax)])
	if err != nil {
		return err
	}
	t.inFill += n
	if t.inFill < 4 {
		return nil
	}
	size := int(binary.BigEndian.Uint32(t.in))
	if size < 4 || size > len(t.in)-4 {
		return fmt.Errorf("a fetch answer of %d bytes", size)
	}
	if t.inFill < 4+size {
		return nil
	}
	l.now = l.clock()
	session, code, ok := fetchAnswer(t.in[4:4+size], func(index int32, code int16, records []byte) {
		if code != 0 {
			if l.now >= l.from {
				l.fail("fetch error code " + strconv.Itoa(int(code)))
			}
			return
		}
		if index >= 0 && int(index) < len(t.slots) && t.slots[index] >= 0 {
			slot := t.slots[index]
			before := t.offsets[slot]
			if l.arrive(t, &t.offsets[slot], records); t.offsets[slot] != before {
				t.session.changed = append(t.session.changed, slot)
			}
		}
	})
	if !ok {
		return errors.New("a fetch answer that cannot be read")
	}
	if !t.session.answered(session, code) && code != 0 {
		l.fail("fetch error code " + strconv.Itoa(int(code)))
	}
	t.inFill = 0
	if l.now >= l.from && l.now < l.to {
		t.group.bytes += int64(size)
		l.readBytes += int64(size)
	}
	if t.fetchAt = 0; t.group.BytesPerSec > 0 {
		t.fetchAt = l.now + int64(float64(size)*1e9/t.group.BytesPerSec)
		return nil
	}
	_, err = l.driveTail(t)
	return err
}

func (l *loop) arrive(t *tail, offset *int64, records []byte) {
	for {
		b, rest, next, ok := nextBatch(records)
		if !ok {
			return
		}
		records = rest
		if next <= *offset {
			continue // the batch was had before
		}
		*offset = next
		lane, number, intended, ok := stampOf(b)
		if !ok {
			l.fail("batch read back without its stamp")
			continue
		}
		l.arrived(t, lane, number, intended)
	}
}

func (l *loop) arrived(t *tail, lane uint16, number uint32, intended int64) {
	age := l.now - intended + l.o.LingerNS
	if t.hop < l.o.Hops-1 {
		if intended >= l.from {
			l.hops[t.hop].record(age)
		}
		// The links of hop h are h times as many further on.
		k := l.links[(t.hop+1)*l.first+int(lane)%l.first]
		k.relay = append(k.relay, intended)
		return
	}
	g := t.group
	if l.o.Verify && t.first && g.prompt() && int(lane) < l.first {
		if l.links[lane].seen.add(number) {
			l.duplicates++
			return // counted, and not twice in what was meant to arrive
		}
	}
	if t.behind && age < 100e6 {
		t.behind = false
		if g.behind--; g.behind == 0 {
			g.caughtUp = l.now - g.begin
		}
	}
	if intended >= l.from {
		g.arrived++
		g.age.record(age)
	}
}

func (l *loop) result(first, last Usage) *Result {
	r := &Result{Offered: l.o.Rate / float64(l.o.Of), Acknowledged: l.acknowledged, Carried: 1, Errors: l.errors, Duplicates: l.duplicates, Reconnects: l.reconnects}
	end := l.clock()
	for _, k := range l.links {
		r.Held += k.heldSends
		if k.onward {
			continue
		}
		k.leftovers(func(intended int64) {
			if intended >= l.from {
				r.Unfinished++
				l.latency.record(end - intended + l.o.LingerNS)
			}
		})
		for i := range k.acked {
			for bit := range uint32(64) {
				if n := uint32(i)*64 + bit; k.acked.has(n) && !k.seen.has(n) {
					r.Lost++
				}
			}
		}
	}
	l.packer.finish(l.interval(end))
	seconds := float64(l.o.WindowNS) / 1e9
	r.RequestsPerSec = float64(l.acknowledged) / seconds
	r.MBPerSec = r.RequestsPerSec * float64(l.o.Records*max(l.o.RecordBytes, stampBytes)) / 1e6
	if l.o.Rate > 0 {
		if intended := l.meant + r.Unfinished + l.errorCount; intended > 0 {
			r.Carried = min(1, float64(l.acknowledged)/float64(intended))
		}
		if l.o.Arrivals.Kind == "" || l.o.Arrivals.Kind == "constant" {
			r.Carried = r.RequestsPerSec / r.Offered
		}
	}
	r.Latency, r.Lag = l.latency.pooled.Summary(), l.lag.pooled.Summary()
	for _, g := range l.groups {
		s := g.age.pooled.Summary()
		if g.prompt() && r.EndToEnd == nil {
			r.EndToEnd = &s
			r.EndToEndLost = max(l.meant*int64(g.Count)-g.arrived, 0)
		}
		r.Readers = append(r.Readers, ReaderResult{Name: g.age.name, Count: g.Count, MBPerSec: float64(g.bytes) / seconds / 1e6, Age: s, CaughtUpNS: g.caughtUp})
		if g.AfterNS == 0 {
			r.Readers[len(r.Readers)-1].CaughtUpNS = 0
		}
	}
	first.Until(last, r)
	return r
}
