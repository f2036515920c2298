package plain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	requestBytesMax = 4 << 20
	readBytes       = 256 << 10
)

// Options of the server.
type Options struct {
	Listen  string
	DataDir string
	Sync    bool // answer after fdatasync
}

// A Front answers the few requests that the generator sends; Store keeps a
// batch whose base offset is patched in. Other yardsticks use it too.
type Front struct {
	Host  string // advertised
	Port  int32
	Store func(batch []byte) error

	appending sync.Mutex // held over offset and Store, so that both have one order
	topics    map[string][]int64
}

type server struct {
	Front
	o    Options
	file *os.File

	queue  sync.Mutex
	dirty  []*conn       // connections with answers in out; guarded by queue
	filled chan struct{} // one slot: dirty is not empty
}

// A conn's answers collect in out, in request order, until they may leave.
type conn struct {
	net.Conn
	out []byte // guarded by server.queue
}

// Serve listens until the process ends.
func Serve(o Options) error {
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(o.DataDir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	addr := ln.Addr().(*net.TCPAddr)
	s := &server{Front: Front{Host: addr.IP.String(), Port: int32(addr.Port)}, o: o, file: f, filled: make(chan struct{}, 1)}
	s.Store = func(batch []byte) error {
		_, err := f.Write(batch)
		return err
	}
	if o.Sync {
		go s.syncer()
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := s.serve(&conn{Conn: c}); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				fmt.Fprintln(os.Stderr, "plain:", err)
			}
		}()
	}
}

// serve reads what there is, handles every whole request in it, then lets the
// answers go, until the connection ends: the error says how.
func (s *server) serve(c *conn) error {
	in := make([]byte, readBytes)
	fill := 0
	var answers []byte
	for {
		n, err := c.Read(in[fill:])
		if err != nil {
			return err
		}
		fill += n
		at := 0
		for fill-at >= 4 {
			size := int(binary.BigEndian.Uint32(in[at:]))
			if size < 10 || size > requestBytesMax {
				return fmt.Errorf("a request of %d bytes", size)
			}
			if fill-at-4 < size {
				if 4+size > len(in) {
					in = append(in, make([]byte, 4+size-len(in))...)
				}
				break
			}
			if answers, err = s.Handle(answers, in[at+4:at+4+size]); err != nil {
				return err
			}
			at += 4 + size
		}
		copy(in, in[at:fill])
		fill -= at
		if len(answers) == 0 {
			continue
		}
		if s.o.Sync {
			s.enqueue(c, answers)
		} else if _, err := c.Write(answers); err != nil {
			return err
		}
		answers = answers[:0]
	}
}

func (s *server) enqueue(c *conn, answers []byte) {
	s.queue.Lock()
	if len(c.out) == 0 {
		s.dirty = append(s.dirty, c)
	}
	c.out = append(c.out, answers...)
	s.queue.Unlock()
	select {
	case s.filled <- struct{}{}:
	default:
	}
}

// syncer: take all that waits; fdatasync; answer it.
func (s *server) syncer() {
	var taken []*conn
	var outs [][]byte
	for range s.filled {
		s.queue.Lock()
		taken, s.dirty = s.dirty, taken[:0]
		for len(outs) < len(taken) {
			outs = append(outs, nil)
		}
		for i, c := range taken {
			outs[i], c.out = c.out, outs[i][:0]
		}
		s.queue.Unlock()
		if len(taken) == 0 {
			continue
		}
		if err := syscall.Fdatasync(int(s.file.Fd())); err != nil {
			fmt.Fprintln(os.Stderr, "plain: fdatasync:", err)
			os.Exit(1)
		}
		for i, c := range taken {
			_, _ = c.Write(outs[i]) // a dead connection's reader will say so
		}
	}
}

// Handle appends the framed answer of one request to answers.
func (s *Front) Handle(answers, req []byte) ([]byte, error) {
	be := binary.BigEndian
	key, version := int16(be.Uint16(req)), int16(be.Uint16(req[2:]))
	correlation := req[4:8]
	body := req[8:]
	client := int(int16(be.Uint16(body)))
	body = body[2:]
	if client > 0 {
		if client > len(body) {
			return nil, errors.New("a client id past its request")
		}
		body = body[client:]
	}
	from := len(answers)
	answers = append(answers, 0, 0, 0, 0)
	answers = append(answers, correlation...)
	var err error
	if key == 0 {
		answers, err = s.produce(answers, body, version)
	} else {
		answers, err = s.cold(answers, body, key, version)
	}
	if err != nil {
		return nil, err
	}
	be.PutUint32(answers[from:], uint32(len(answers)-from-4))
	return answers, nil
}

var errShort = errors.New("a request that ends early")

// produce walks a Produce request of versions 3 to 7 and answers it on the way:
// request and response have the same shape.
func (s *Front) produce(answers, b []byte, version int16) ([]byte, error) {
	if version < 3 || version > 7 {
		return nil, fmt.Errorf("version %d of Produce is not served", version)
	}
	be := binary.BigEndian
	bad := false
	take := func(n int) []byte {
		if n < 0 || n > len(b) {
			bad, b = true, nil
			return make([]byte, 8)
		}
		t := b[:n]
		b = b[n:]
		return t
	}
	if n := int(int16(be.Uint16(take(2)))); n > 0 {
		take(n) // transactional id
	}
	take(2 + 4) // acks, timeout
	topics := take(4)
	answers = append(answers, topics...)
	for n := be.Uint32(topics); n > 0 && !bad; n-- {
		size := take(2)
		name := take(int(be.Uint16(size)))
		partitions := take(4)
		answers = append(answers, size...)
		answers = append(answers, name...)
		answers = append(answers, partitions...)
		for m := be.Uint32(partitions); m > 0 && !bad; m-- {
			index := take(4)
			records := take(int(be.Uint32(take(4))))
			if bad {
				break
			}
			base, code, err := s.append(name, int(be.Uint32(index)), records)
			if err != nil {
				return nil, err
			}
			answers = append(answers, index...)
			answers = be.AppendUint16(answers, uint16(code))
			answers = be.AppendUint64(answers, uint64(base))
			answers = be.AppendUint64(answers, ^uint64(0)) // no append time
			if version >= 5 {
				answers = be.AppendUint64(answers, 0) // log start
			}
		}
	}
	if bad {
		return nil, errShort
	}
	return be.AppendUint32(answers, 0), nil // throttle
}

// append checks one batch, gives it its base offset and writes it.
func (s *Front) append(topic []byte, partition int, b []byte) (base int64, code int16, err error) {
	be := binary.BigEndian
	if len(b) < 61 || int(be.Uint32(b[8:]))+12 != len(b) || b[16] != 2 || be.Uint32(b[17:]) != crc32.Checksum(b[21:], castagnoli) {
		return -1, 2, nil // CORRUPT_MESSAGE
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	ends := s.topics[string(topic)]
	if partition < 0 || partition >= len(ends) {
		return -1, 3, nil // UNKNOWN_TOPIC_OR_PARTITION
	}
	base = ends[partition]
	be.PutUint64(b, uint64(base))
	if err := s.Store(b); err != nil {
		return 0, 0, err
	}
	ends[partition] = base + int64(be.Uint32(b[57:]))
	return base, 0, nil
}

// cold answers what a client asks before it produces.
func (s *Front) cold(answers, body []byte, key, version int16) ([]byte, error) {
	req := kmsg.RequestForKey(key)
	if req == nil || version > 7 || req.MaxVersion() < version {
		return nil, fmt.Errorf("key %d version %d is not served", key, version)
	}
	req.SetVersion(version)
	if req.IsFlexible() {
		return nil, fmt.Errorf("key %d version %d is flexible: not served", key, version)
	}
	if err := req.ReadFrom(body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	switch req := req.(type) {
	case *kmsg.ApiVersionsRequest:
		r := resp.(*kmsg.ApiVersionsResponse)
		for _, k := range [][3]int16{{0, 3, 7}, {3, 4, 7}, {18, 0, 2}, {19, 2, 4}} {
			a := kmsg.NewApiVersionsResponseApiKey()
			a.ApiKey, a.MinVersion, a.MaxVersion = k[0], k[1], k[2]
			r.ApiKeys = append(r.ApiKeys, a)
		}
	case *kmsg.CreateTopicsRequest:
		s.create(req, resp.(*kmsg.CreateTopicsResponse))
	case *kmsg.MetadataRequest:
		s.metadata(req, resp.(*kmsg.MetadataResponse))
	default:
		return nil, fmt.Errorf("%s is not served", kmsg.NameForKey(key))
	}
	return resp.AppendTo(answers), nil
}

func (s *Front) create(req *kmsg.CreateTopicsRequest, resp *kmsg.CreateTopicsResponse) {
	s.appending.Lock()
	defer s.appending.Unlock()
	for _, t := range req.Topics {
		a := kmsg.NewCreateTopicsResponseTopic()
		a.Topic = t.Topic
		switch {
		case s.topics[t.Topic] != nil:
			a.ErrorCode = 36 // TOPIC_ALREADY_EXISTS
		case t.NumPartitions < 1 || t.NumPartitions > 100_000:
			a.ErrorCode = 37 // INVALID_PARTITIONS
		default:
			if s.topics == nil {
				s.topics = map[string][]int64{}
			}
			s.topics[t.Topic] = make([]int64, t.NumPartitions)
		}
		resp.Topics = append(resp.Topics, a)
	}
}

func (s *Front) metadata(req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	s.appending.Lock()
	defer s.appending.Unlock()
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port = 1, s.Host, s.Port
	resp.Brokers = append(resp.Brokers, b)
	resp.ControllerID = 1
	for _, t := range req.Topics {
		a := kmsg.NewMetadataResponseTopic()
		a.Topic = t.Topic
		if t.Topic == nil || s.topics[*t.Topic] == nil {
			a.ErrorCode = 3
		} else {
			for i := range s.topics[*t.Topic] {
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Partition, p.Leader = int32(i), 1
				p.Replicas, p.ISR = []int32{1}, []int32{1}
				a.Partitions = append(a.Partitions, p)
			}
		}
		resp.Topics = append(resp.Topics, a)
	}
}
