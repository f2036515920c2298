package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
)

const (
	sectorBytes = 512
	blockBytes  = 4096
	chunkBytes  = 64 << 10
)

// Disk is a directory tree of files that survives power cuts as a real one does. A
// written byte is in flight until its write completes, then volatile until a later
// submitted sync of its file completes, then durable. Directory entries are durable
// after an fsync of their directory, sizes and allocations after a sync of their file.
//
// A Disk outlives the rings: PowerCut or Kill ends a life, and the next life begins with
// new rings on the same Disk.
type Disk struct {
	// Capacity is the room in bytes; 0: no limit.
	Capacity int64
	// Inodes is how many files and directories there can be; 0: no limit.
	Inodes int
	// Fail may fail an operation: it returns 0 or a negative errno. path is the file's.
	// nil: nothing fails.
	Fail func(code ioring.Code, path string, offset uint64, n int) int32

	root  *inode
	used  int64 // allocated bytes of all files that have a name or are open
	files int   // how many files and directories have a name or are open
	tick  func() uint64
}

// inode is a file or a directory.
//
// Invariant: the present contents of a file are data, with the completed changes of
// pending applied in their order.
type inode struct {
	name string // the last name it had, for messages
	dir  bool

	data    map[int64][]byte // durable contents, by chunk; a missing chunk is zeroes
	size    int64            // durable size
	blocks  bitset           // durable allocation
	pending []*change        // changes in flight, and completed ones in the order of completion
	seen    int64            // present size
	written int64            // when its last write completed, in ms since 1970
	held    bitset           // present allocation
	links   int              // how many names it has now
	opens   int

	entries []entry // durable entries of a directory, sorted
	now     []entry // its present entries
	moves   []*move // changes of entries not yet durable, in order
}

type entry struct {
	name string
	node *inode
}

// change is one write or allocation that is not durable yet.
type change struct {
	offset int64
	data   []byte // nil: an allocation
	n      int64  // bytes written or allocated
	grows  bool   // the size becomes at least offset + n
	done   bool
	serial uint64 // of its completion
	doomed bool   // a sync of it failed: no later sync of this life makes it durable
}

// move is one change of directory entries: a name gets a node, or loses it. A rename is
// one move of two names, which is kept or lost as a whole.
type move struct {
	dir    *inode
	name   string
	node   *inode // nil: removed
	also   *move  // the other half of a rename
	serial uint64
	gone   bool // durable, or lost
}

// NewDisk makes an empty disk.
func NewDisk(capacity int64) *Disk {
	d := &Disk{Capacity: capacity, root: &inode{dir: true, links: 1}}
	n := uint64(0)
	d.tick = func() uint64 { n++; return n }
	return d
}

// --- names -----------------------------------------------------------------

func find(list []entry, name string) (int, bool) {
	i := sort.Search(len(list), func(i int) bool { return list[i].name >= name })
	return i, i < len(list) && list[i].name == name
}

func put(list []entry, name string, node *inode) []entry {
	i, ok := find(list, name)
	switch {
	case ok && node == nil:
		return append(list[:i:i], list[i+1:]...)
	case ok:
		list[i].node = node
		return list
	case node == nil:
		return list
	}
	list = append(list, entry{})
	copy(list[i+1:], list[i:])
	list[i] = entry{name, node}
	return list
}

func split(path string) []string {
	var parts []string
	for _, p := range strings.Split(path, "/") {
		if p != "" && p != "." {
			parts = append(parts, p)
		}
	}
	return parts
}

// walk finds the directory of path's last name.
func (d *Disk) walk(path string) (dir *inode, last string, errno unix.Errno) {
	parts := split(path)
	dir = d.root
	if len(parts) == 0 {
		return dir, "", 0
	}
	for _, p := range parts[:len(parts)-1] {
		i, ok := find(dir.now, p)
		if !ok {
			return nil, "", unix.ENOENT
		}
		if dir = dir.now[i].node; !dir.dir {
			return nil, "", unix.ENOTDIR
		}
	}
	return dir, parts[len(parts)-1], 0
}

func (d *Disk) lookup(path string) (*inode, unix.Errno) {
	dir, last, errno := d.walk(path)
	if errno != 0 {
		return nil, errno
	}
	if last == "" {
		return dir, 0
	}
	i, ok := find(dir.now, last)
	if !ok {
		return nil, unix.ENOENT
	}
	return dir.now[i].node, 0
}

func (d *Disk) set(dir *inode, name string, node *inode) *move {
	if i, ok := find(dir.now, name); ok {
		old := dir.now[i].node
		old.links--
		d.release(old)
	}
	dir.now = put(dir.now, name, node)
	if node != nil {
		node.links++
		node.name = name
	}
	m := &move{dir: dir, name: name, node: node, serial: d.tick()}
	dir.moves = append(dir.moves, m)
	return m
}

// release frees the room of a file that has no name and is not open.
func (d *Disk) release(n *inode) {
	if n.links == 0 && n.opens == 0 && !n.dir {
		d.used -= n.held.count() * blockBytes
		n.held = n.held[:0]
	}
	if n.links == 0 && n.opens == 0 {
		d.files--
	}
}

// inodesFull reports that no file or directory can be made.
func (d *Disk) inodesFull() bool { return d.Inodes > 0 && d.files >= d.Inodes }

func (d *Disk) open(path string, bits uint64) (*inode, unix.Errno) {
	dir, last, errno := d.walk(path)
	if errno != 0 {
		return nil, errno
	}
	node := dir
	if last != "" {
		i, ok := find(dir.now, last)
		switch {
		case ok && bits&ioring.OpenCreate != 0 && bits&ioring.OpenExclusive != 0:
			return nil, unix.EEXIST
		case ok:
			node = dir.now[i].node
		case bits&ioring.OpenCreate == 0:
			return nil, unix.ENOENT
		case d.inodesFull():
			return nil, unix.ENOSPC
		default:
			node = &inode{data: map[int64][]byte{}}
			d.files++
			d.set(dir, last, node)
		}
	}
	if node.dir != (bits&ioring.OpenDirectory != 0) {
		if node.dir {
			return nil, unix.EISDIR
		}
		return nil, unix.ENOTDIR
	}
	node.opens++
	return node, 0
}

func (d *Disk) close(n *inode) {
	n.opens--
	d.release(n)
}

func (d *Disk) mkdir(path string) unix.Errno {
	dir, last, errno := d.walk(path)
	if errno != 0 {
		return errno
	}
	if _, ok := find(dir.now, last); ok || last == "" {
		return unix.EEXIST
	}
	if d.inodesFull() {
		return unix.ENOSPC
	}
	d.files++
	d.set(dir, last, &inode{dir: true})
	return 0
}

func (d *Disk) unlink(path string) unix.Errno {
	dir, last, errno := d.walk(path)
	if errno != 0 {
		return errno
	}
	i, ok := find(dir.now, last)
	if !ok {
		return unix.ENOENT
	}
	if dir.now[i].node.dir && len(dir.now[i].node.now) > 0 {
		return unix.EISDIR
	}
	d.set(dir, last, nil)
	return 0
}

func (d *Disk) rename(from, to string) unix.Errno {
	fd, fn, errno := d.walk(from)
	if errno != 0 {
		return errno
	}
	td, tn, errno := d.walk(to)
	if errno != 0 {
		return errno
	}
	i, ok := find(fd.now, fn)
	if !ok {
		return unix.ENOENT
	}
	node := fd.now[i].node
	node.opens++ // keep it while it has no name
	a := d.set(fd, fn, nil)
	b := d.set(td, tn, node)
	node.opens--
	a.also, b.also = b, a
	return 0
}

// --- contents --------------------------------------------------------------

// begin starts a write or an allocation and reserves room for it; done or undo ends it.
// n is how much of it fits; 0 means ENOSPC.
func (d *Disk) begin(f *inode, offset int64, data []byte, size int64, grows bool) (*change, int64) {
	n := size
	for b := offset / blockBytes; b*blockBytes < offset+size; b++ {
		if f.held.has(b) {
			continue
		}
		if d.Capacity > 0 && d.used+blockBytes > d.Capacity {
			n = max(b*blockBytes-offset, 0)
			break
		}
		f.held.set(b)
		d.used += blockBytes
	}
	c := &change{offset: offset, n: n, grows: grows}
	if data != nil {
		c.data = data[:n]
	}
	if n > 0 {
		f.pending = append(f.pending, c)
	}
	return c, n
}

func (d *Disk) done(f *inode, c *change) {
	c.done, c.serial = true, d.tick()
	if c.grows && c.offset+c.n > f.seen {
		f.seen = c.offset + c.n
	}
	// completed changes stand in order of completion
	for i, x := range f.pending {
		if x == c {
			copy(f.pending[i:], f.pending[i+1:])
			f.pending[len(f.pending)-1] = c
		}
	}
}

func (d *Disk) undo(f *inode, c *change) {
	for i, x := range f.pending {
		if x == c {
			f.pending = append(f.pending[:i], f.pending[i+1:]...)
			return
		}
	}
}

// sync makes the changes durable that completed before the serial number before.
func (d *Disk) sync(f *inode, before uint64, full bool) {
	if f.dir {
		if !full {
			return
		}
		for _, m := range f.moves {
			if m.serial < before {
				m.keep()
			}
		}
		f.moves = pruned(f.moves)
		return
	}
	var rest []*change
	for _, c := range f.pending {
		if c.done && c.serial < before && !c.doomed {
			f.keep(c)
			rest = under(rest, c)
			continue
		}
		rest = append(rest, c)
	}
	f.pending = rest
}

// under removes from older changes that are not durable the bytes that c overwrites:
// they cannot appear any more.
func under(older []*change, c *change) []*change {
	if c.data == nil {
		return older
	}
	rest := make([]*change, 0, len(older)+1)
	for _, x := range older {
		from, to := max(x.offset, c.offset), min(x.offset+x.n, c.offset+c.n)
		if !x.done || x.data == nil || from >= to {
			rest = append(rest, x)
			continue
		}
		if n := from - x.offset; n > 0 {
			left := *x
			left.n, left.data = n, x.data[:n]
			rest = append(rest, &left)
		}
		if n := x.offset + x.n - to; n > 0 {
			right := *x
			right.offset, right.n, right.data = to, n, x.data[to-x.offset:]
			rest = append(rest, &right)
		}
	}
	return rest
}

// doom is the effect of a failed sync: the kernel marks the pages clean, and no later
// sync writes them.
func (d *Disk) doom(f *inode, before uint64) {
	for _, c := range f.pending {
		if c.done && c.serial < before {
			c.doomed = true
		}
	}
}

func (m *move) keep() {
	if m.gone {
		return
	}
	m.gone = true
	m.dir.entries = put(m.dir.entries, m.name, m.node)
	if m.also != nil {
		m.also.keep()
	}
}

func pruned(moves []*move) []*move {
	rest := moves[:0]
	for _, m := range moves {
		if !m.gone {
			rest = append(rest, m)
		}
	}
	clear(moves[len(rest):])
	return rest
}

func (n *inode) keep(c *change) {
	if c.data != nil {
		n.store(c.offset, c.data)
	}
	for b := c.offset / blockBytes; b*blockBytes < c.offset+c.n; b++ {
		n.blocks.set(b)
	}
	if c.grows && c.offset+c.n > n.size {
		n.size = c.offset + c.n
	}
}

func (n *inode) store(offset int64, p []byte) {
	for len(p) > 0 {
		k, at := offset/chunkBytes, offset%chunkBytes
		c := n.data[k]
		if c == nil {
			c = make([]byte, chunkBytes)
			n.data[k] = c
		}
		m := copy(c[at:], p)
		p, offset = p[m:], offset+int64(m)
	}
}

func (n *inode) load(offset int64, p []byte) {
	for len(p) > 0 {
		k, at := offset/chunkBytes, offset%chunkBytes
		m := min(len(p), int(chunkBytes-at))
		if c := n.data[k]; c != nil {
			copy(p[:m], c[at:])
		} else {
			clear(p[:m])
		}
		p, offset = p[m:], offset+int64(m)
	}
}

// seekData is the first block at an offset or behind it that is not all zero: this disk does not
// know which zeroes were written.
func (n *inode) seekData(offset int64) int64 {
	var block [blockBytes]byte
	for at := offset &^ (blockBytes - 1); at < n.seen; at += blockBytes {
		clear(block[:])
		n.read(at, block[:])
		if block != [blockBytes]byte{} {
			return max(at, offset)
		}
	}
	return math.MaxInt64
}

// read fills p with the present contents, and returns how many bytes there were.
func (n *inode) read(offset int64, p []byte) int {
	if offset >= n.seen {
		return 0
	}
	p = p[:min(int64(len(p)), n.seen-offset)]
	n.load(offset, p)
	end := offset + int64(len(p))
	for _, c := range n.pending {
		if !c.done || c.data == nil || c.offset >= end || c.offset+c.n <= offset {
			continue
		}
		if c.offset >= offset {
			copy(p[c.offset-offset:], c.data)
		} else {
			copy(p, c.data[offset-c.offset:])
		}
	}
	return len(p)
}

// --- the end of a life -----------------------------------------------------

// PowerCut ends a life. Of data that was not durable, each sector of 512 bytes is kept,
// lost or garbage, independently of the others; names, sizes and allocations that were
// not synced are kept or lost.
func (d *Disk) PowerCut(r *rand.Rand) {
	cruel := r.IntN(4) // 0: everything is kept; 1: everything is lost; else each independently
	for _, n := range d.inodes() {
		if n.dir {
			prefix := r.IntN(2) == 0 // a file system with a metadata journal keeps the order, others need not
			for _, m := range n.moves {
				if cruel == 1 || cruel != 0 && r.IntN(2) == 0 {
					if prefix {
						break
					}
					continue
				}
				m.keep()
			}
			continue
		}
		size := n.size
		for _, c := range n.pending {
			fate := 0
			switch {
			case cruel == 1:
				fate = 1
			case cruel != 0:
				fate = r.IntN(5)
			case !c.done:
				fate = r.IntN(2)
			}
			n.land(r, c, fate)
			if c.grows && fate != 1 && c.offset+c.n > size && r.IntN(3) > 0 {
				size = c.offset + c.n
			}
		}
		n.size = size
		n.pending = nil
	}
	d.settle()
}

// land writes a change to the medium: all of it (0), nothing (1), a part from its start
// (2), or each sector independently (3, 4).
func (n *inode) land(r *rand.Rand, c *change, fate int) {
	if fate == 1 {
		return
	}
	if c.data == nil {
		grows := *c
		grows.grows = false
		n.keep(&grows)
		return
	}
	sectors := int(c.n) / sectorBytes
	upto := sectors
	if fate == 2 {
		upto = r.IntN(sectors + 1)
	}
	for i := range upto {
		at := c.offset + int64(i*sectorBytes)
		p := c.data[i*sectorBytes : (i+1)*sectorBytes]
		if fate >= 3 {
			switch r.IntN(5) {
			case 0, 1:
				continue // the old content stays
			case 2:
				p = garbage(r, p)
			}
		}
		n.store(at, p)
		n.blocks.set(at / blockBytes)
	}
}

func garbage(r *rand.Rand, p []byte) []byte {
	g := make([]byte, len(p))
	switch r.IntN(3) {
	case 0: // zeroes
	case 1:
		for i := range g {
			g[i] = byte(r.Uint32())
		}
	case 2: // half of it, then other bytes
		copy(g, p[:r.IntN(len(p))])
	}
	return g
}

// Kill ends a life like kill -9: completed changes stay, but are not durable yet; changes
// in flight happened or did not.
func (d *Disk) Kill(r *rand.Rand) {
	for _, n := range d.inodes() {
		rest := n.pending[:0]
		for _, c := range n.pending {
			if !c.done {
				switch r.IntN(5) {
				case 0, 1:
					continue
				case 2:
					// a process can die in the middle of a large write
					if c.n >= 2*blockBytes && c.data != nil {
						c.n = (1 + r.Int64N(c.n/blockBytes-1)) * blockBytes
						c.data = c.data[:c.n]
					}
				}
				c.done, c.serial = true, d.tick()
				if c.grows && c.offset+c.n > n.seen {
					n.seen = c.offset + c.n
				}
			}
			c.doomed = false // a sync of the next process covers it again
			rest = append(rest, c)
		}
		n.pending = rest
		n.opens = 0
	}
	d.count()
}

// settle makes the durable contents the present ones.
func (d *Disk) settle() {
	d.root.links = 1
	var visit func(n *inode)
	visit = func(n *inode) {
		n.moves, n.opens = nil, 0
		if !n.dir {
			n.seen = n.size
			n.held = append(bitset(nil), n.blocks...)
			n.trim()
			return
		}
		n.now = append([]entry(nil), n.entries...)
		for _, e := range n.now {
			e.node.links, e.node.name = 1, e.name
			visit(e.node)
		}
	}
	visit(d.root)
	d.count()
}

// trim clears the bytes past the end, so that they are zero when the file grows again.
func (n *inode) trim() {
	last := n.size / chunkBytes
	for k, c := range n.data { // order cannot be seen
		switch {
		case k > last:
			delete(n.data, k)
		case k == last:
			clear(c[n.size%chunkBytes:])
		}
	}
}

func (d *Disk) count() {
	d.used, d.files = 0, 0
	for _, n := range d.inodes() {
		if n.links == 0 || n == d.root {
			continue
		}
		d.files++
		if !n.dir {
			d.used += n.held.count() * blockBytes
		}
	}
}

// inodes lists every file and directory that has a name or may get one back, in an order
// that depends on the seed only.
func (d *Disk) inodes() []*inode {
	var all []*inode
	seen := map[*inode]bool{}
	var visit func(n *inode)
	visit = func(n *inode) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n)
		for _, e := range n.entries {
			visit(e.node)
		}
		for _, e := range n.now {
			visit(e.node)
		}
		for _, m := range n.moves {
			visit(m.node)
		}
	}
	visit(d.root)
	return all
}

// --- for tests -------------------------------------------------------------

// Used returns how many bytes are allocated.
func (d *Disk) Used() int64 { return d.used }

// Files is how many files and directories there are.
func (d *Disk) Files() int { return d.files }

// Paths lists the present files, sorted.
func (d *Disk) Paths() []string {
	var out []string
	var visit func(prefix string, n *inode)
	visit = func(prefix string, n *inode) {
		for _, e := range n.now {
			if e.node.dir {
				visit(prefix+e.name+"/", e.node)
			} else {
				out = append(out, prefix+e.name)
			}
		}
	}
	visit("", d.root)
	return out
}

// Contents returns the present contents of a file; nil if there is no such file.
func (d *Disk) Contents(path string) []byte {
	n, errno := d.lookup(path)
	if errno != 0 || n.dir {
		return nil
	}
	p := make([]byte, n.seen)
	n.read(0, p)
	return p
}

// Size returns the present size of a file; -1 if there is no such file.
func (d *Disk) Size(path string) int64 {
	n, errno := d.lookup(path)
	if errno != 0 || n.dir {
		return -1
	}
	return n.seen
}

// Overwrite writes p to the medium at offset, outside all rules: corruption.
func (d *Disk) Overwrite(path string, offset int64, p []byte) {
	n, errno := d.lookup(path)
	if errno != 0 || n.dir || offset+int64(len(p)) > n.seen {
		panic(fmt.Sprintf("sim: no %d bytes at %d of %s", len(p), offset, path))
	}
	n.store(offset, p)
	for _, c := range n.pending {
		if c.done && c.data != nil && c.offset < offset+int64(len(p)) && offset < c.offset+c.n {
			for i := range p {
				if at := offset + int64(i) - c.offset; at >= 0 && at < c.n {
					c.data[at] = p[i]
				}
			}
		}
	}
}

// Flip changes one byte at offset: corruption.
func (d *Disk) Flip(path string, offset int64) {
	p := d.Contents(path)
	d.Overwrite(path, offset, []byte{p[offset] ^ 0x5a})
}

// Clone returns a copy that shares nothing with d.
func (d *Disk) Clone() *Disk {
	nd := &Disk{Capacity: d.Capacity, Inodes: d.Inodes, used: d.used, files: d.files, Fail: d.Fail}
	n := d.tick()
	nd.tick = func() uint64 { n++; return n }
	twin := map[*inode]*inode{}
	moved := map[*move]*move{}
	all := d.inodes()
	for _, n := range all {
		twin[n] = &inode{}
	}
	entries := func(list []entry) []entry {
		var out []entry
		for _, e := range list {
			out = append(out, entry{e.name, twin[e.node]})
		}
		return out
	}
	for _, n := range all {
		t := twin[n]
		*t = *n
		t.data = map[int64][]byte{}
		for k, c := range n.data {
			t.data[k] = append([]byte(nil), c...)
		}
		t.blocks = append(bitset(nil), n.blocks...)
		t.held = append(bitset(nil), n.held...)
		t.pending = nil
		for _, c := range n.pending {
			x := *c
			x.data = append([]byte(nil), c.data...)
			if c.data == nil {
				x.data = nil
			}
			t.pending = append(t.pending, &x)
		}
		t.entries, t.now = entries(n.entries), entries(n.now)
		t.moves = nil
		for _, m := range n.moves {
			x := *m
			x.dir = twin[m.dir]
			if m.node != nil {
				x.node = twin[m.node]
			}
			moved[m] = &x
			t.moves = append(t.moves, &x)
		}
	}
	for _, m := range moved { // order cannot be seen
		if m.also != nil {
			m.also = moved[m.also]
		}
	}
	nd.root = twin[d.root]
	return nd
}

// --- sets of blocks ----------------------------------------------------------

type bitset []uint64

func (b bitset) has(i int64) bool {
	return i/64 < int64(len(b)) && b[i/64]>>(i%64)&1 != 0
}

func (b *bitset) set(i int64) {
	for i/64 >= int64(len(*b)) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bitset) count() int64 {
	n := int64(0)
	for _, w := range b {
		for ; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}
