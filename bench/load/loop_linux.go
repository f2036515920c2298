package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	outBytes       = 64 << 10 // small requests are gathered up to this for one send
	inBytes        = 256 << 10
	templateCount  = 4       // per connection: no two neighbours carry the same bytes
	fetchBytes     = 4 << 20 // an answer, of all partitions
	partitionBytes = 1 << 20
	fetchWaitMS    = 500
	readBytesMax   = 256 << 10 // of one connection in one round of the loop
)

// A link is one producing connection: send(); await answer(); record().
type link struct {
	lane
	fd         int
	partitions []int32
	templates  []*batch
	turn       int
	sequence   int32 // correlation of the next request
	expected   int32 // of the next answer
	out        []byte
	body       []byte // the batch after out, sent by reference
	sentBytes  int    // of out and body together
	in         []byte
	inFill     int
	wantsWrite bool
}

// A tail is one consuming connection: fetch(); await answer(); fetch() again.
type tail struct {
	fd         int
	partitions []int32
	offsets    []int64
	sequence   int32
	out        []byte
	in         []byte
	inFill     int
}

type loop struct {
	o        Options
	epoll    int
	links    []*link
	tails    []*tail
	origin   time.Time
	from, to int64 // the window
	now      int64

	latency, lag, endToEnd *Histogram
	acknowledged           int64
	arrived                int64 // batches of the window that came back
	meant                  int64 // batches of the window that were acknowledged
	errors                 map[string]int64
}

// Run drives one phase. It takes over the calling goroutine's thread and turns
// the process's garbage collection off: it is meant to be a process's only
// work.
func Run(o Options) (*Result, error) {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(2 << 30)
	// The default slack of 50 us would be in every latency.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)

	l := &loop{o: o, origin: time.Now(), latency: newHistogram(), lag: newHistogram(), endToEnd: newHistogram(), errors: map[string]int64{}}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(l.epoll)
	if err := l.connect(); err != nil {
		return nil, err
	}
	return l.run()
}

// connect makes the topic and the connections. Each connection goes to one
// leader and serves its own share of that leader's partitions.
func (l *loop) connect() error {
	addrs, err := leaders(l.o.Bootstrap, l.o.Topic, l.o.Partitions, l.o.Keep)
	if err != nil {
		return err
	}
	var nodes []string
	owned := map[string][]int32{}
	for p, a := range addrs {
		if owned[a] == nil {
			nodes = append(nodes, a)
		}
		owned[a] = append(owned[a], int32(p))
	}
	if len(nodes) > l.o.Connections {
		return fmt.Errorf("%d connections for %d leaders", l.o.Connections, len(nodes))
	}
	random := rand.NewChaCha8([32]byte{'b'})
	for c := range l.o.Connections {
		node := nodes[c%len(nodes)]
		sharing := (l.o.Connections - c%len(nodes) + len(nodes) - 1) / len(nodes)
		k := &link{out: make([]byte, 0, outBytes+4096), in: make([]byte, inBytes)}
		for i, p := range owned[node] {
			if i%sharing == c/len(nodes) {
				k.partitions = append(k.partitions, p)
			}
		}
		if k.partitions == nil { // fewer partitions than connections: share one
			k.partitions = []int32{owned[node][c/len(nodes)%len(owned[node])]}
		}
		for range templateCount {
			k.templates = append(k.templates, newBatch(l.o.Records, l.o.RecordBytes, random))
		}
		k.inflight = make([]int64, l.o.Inflight)
		if k.fd, err = l.dial(node, len(l.links)); err != nil {
			return err
		}
		l.links = append(l.links, k)
	}
	if !l.o.Consumer {
		return nil
	}
	for _, node := range nodes {
		t := &tail{partitions: owned[node], offsets: make([]int64, len(owned[node])), in: make([]byte, 2*fetchBytes+inBytes)}
		if t.fd, err = l.dial(node, len(l.links)+len(l.tails)); err != nil {
			return err
		}
		l.tails = append(l.tails, t)
	}
	return nil
}

// dial connects a raw socket and puts it, nonblocking, under epoll as number id.
func (l *loop) dial(addr string, id int) (int, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return 0, err
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
		return 0, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return 0, fmt.Errorf("connect %s: %w", addr, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.SetNonblock(fd, true); err != nil {
		return 0, err
	}
	return fd, unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(id)})
}

func (l *loop) clock() int64 { return int64(time.Since(l.origin)) }

type reading struct{ own, server, steal, all, at int64 }

func (l *loop) read() reading {
	r := reading{at: l.clock()}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		r.own = u.Utime.Nano() + u.Stime.Nano()
	}
	if l.o.ServerPID != 0 {
		r.server = cpuTicks(strconv.Itoa(l.o.ServerPID))
	}
	r.steal, r.all = machineTicks()
	return r
}

func (l *loop) run() (*Result, error) {
	start := l.clock() + 20e6
	l.from = start + l.o.WarmupNS
	l.to = l.from + l.o.WindowNS
	for i, k := range l.links {
		k.schedule = schedule{Start: start, End: l.to, Lanes: int64(len(l.links)), Lane: int64(i)}
		if l.o.Rate > 0 {
			k.Interval = 1e9 / l.o.Rate
		}
	}
	for _, t := range l.tails {
		if err := t.fetch(l.o.Topic); err != nil {
			return nil, err
		}
	}
	var first, last reading
	events := make([]unix.EpollEvent, len(l.links)+len(l.tails))
	for {
		l.now = l.clock()
		if first.at == 0 && l.now >= l.from {
			first = l.read()
		}
		if l.now >= l.to {
			if last.at == 0 {
				last = l.read()
			}
			if l.finished() || l.now >= l.to+l.o.DrainNS {
				break
			}
		}
		wake := l.to + l.o.DrainNS
		if last.at == 0 {
			wake = l.to
		}
		for _, k := range l.links {
			if err := l.pump(k); err != nil {
				return nil, err
			}
			wake = min(wake, k.wakeAt())
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
		if !k.done() {
			return false
		}
	}
	return l.tails == nil || l.arrived >= l.meant
}

func (l *loop) handle(id int, events uint32) error {
	if id >= len(l.links) {
		return l.receiveTail(l.tails[id-len(l.links)])
	}
	k := l.links[id]
	if events&unix.EPOLLOUT != 0 {
		l.now = l.clock()
		if err := l.pump(k); err != nil {
			return err
		}
	}
	if events&^uint32(unix.EPOLLOUT) != 0 {
		return l.receive(k)
	}
	return nil
}

// pump sends what is due, until the bound, the socket or the schedule says no.
func (l *loop) pump(k *link) error {
	for {
		if len(k.out) == 0 {
			for len(k.out) < outBytes && k.body == nil {
				intended, lag, ok := k.take(l.now)
				if !ok {
					break
				}
				if lag >= 0 && intended >= l.from {
					l.lag.record(lag)
				}
				k.assemble(l.o.Topic, intended)
			}
			if len(k.out) == 0 {
				return l.writable(k, false)
			}
		}
		all, err := k.send()
		if err != nil {
			return err
		}
		if !all {
			k.hold()
			return l.writable(k, true)
		}
		l.now = l.clock()
	}
}

// assemble puts one request into out; a large batch stays where it is and goes
// by reference.
func (k *link) assemble(topic string, intended int64) {
	t := k.templates[k.turn%len(k.templates)]
	p := k.partitions[k.turn%len(k.partitions)]
	k.turn++
	t.stamp(intended)
	k.out = appendProduce(k.out, k.sequence, topic, p, len(t.bytes))
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
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: l.number(k)}
	if want {
		ev.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, k.fd, &ev)
}

func (l *loop) number(k *link) int32 {
	for i, o := range l.links {
		if o == k {
			return int32(i)
		}
	}
	panic("load: a link of another loop")
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
	correlation, code, ok := produceAnswer(frame, l.o.Topic)
	intended, known := k.answer()
	if !ok || !known || correlation != k.expected {
		return fmt.Errorf("answer %d of %d bytes where %d was next", correlation, len(frame), k.expected)
	}
	k.expected++
	if code != 0 {
		l.errors["produce error code "+strconv.Itoa(int(code))]++
		return nil
	}
	if l.now >= l.from && l.now < l.to {
		l.acknowledged++
	}
	if intended >= l.from {
		l.meant++
		l.latency.record(l.now - intended)
	}
	return nil
}

func (t *tail) fetch(topic string) error {
	t.out = appendFetch(t.out[:0], t.sequence, topic, t.partitions, t.offsets, fetchWaitMS, fetchBytes, partitionBytes)
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
// what came and asks for more.
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
	code, ok := fetchAnswer(t.in[4:4+size], func(index int32, code int16, records []byte) {
		if code != 0 {
			l.errors["fetch error code "+strconv.Itoa(int(code))]++
			return
		}
		for i, p := range t.partitions {
			if p == index {
				l.arrive(&t.offsets[i], records)
			}
		}
	})
	if !ok {
		return errors.New("a fetch answer that cannot be read")
	}
	if code != 0 {
		l.errors["fetch error code "+strconv.Itoa(int(code))]++
	}
	t.inFill = 0
	return t.fetch(l.o.Topic)
}

func (l *loop) arrive(offset *int64, records []byte) {
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
		intended, ok := stampOf(b)
		if !ok {
			l.errors["batch read back without its stamp"]++
			continue
		}
		if intended >= l.from {
			l.arrived++
			l.endToEnd.record(l.now - intended)
		}
	}
}

func (l *loop) result(first, last reading) *Result {
	r := &Result{Offered: l.o.Rate, Acknowledged: l.acknowledged, Carried: 1, Errors: l.errors}
	end := l.clock()
	for _, k := range l.links {
		r.Held += k.heldSends
		k.leftovers(func(intended int64) {
			if intended >= l.from {
				r.Unfinished++
				l.latency.record(end - intended)
			}
		})
	}
	seconds := float64(l.o.WindowNS) / 1e9
	r.RequestsPerSec = float64(l.acknowledged) / seconds
	r.MBPerSec = r.RequestsPerSec * float64(l.o.Records*max(l.o.RecordBytes, stampBytes)) / 1e6
	if l.o.Rate > 0 {
		r.Carried = r.RequestsPerSec / l.o.Rate
	}
	r.Latency, r.Lag = l.latency.summary(), l.lag.summary()
	if l.tails != nil {
		s := l.endToEnd.summary()
		r.EndToEnd = &s
		r.EndToEndLost = max(l.meant-l.arrived, 0)
	}
	elapsed := float64(last.at - first.at)
	r.GeneratorCPU = float64(last.own-first.own) / elapsed
	r.ServerCPU = float64(last.server-first.server) * 1e7 / elapsed
	if all := last.all - first.all; all > 0 {
		r.Steal = float64(last.steal-first.steal) / float64(all)
	}
	r.judge()
	return r
}
