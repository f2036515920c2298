package rings

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// What a block costs that was never written. Files are written once, from end to
// end, with as many direct writes and linked fdatasyncs in flight as a broker of
// four partitions has, and their blocks were before that
//
//	new      allocated
//	touched  written and synced, then made unwritten again (FALLOC_FL_ZERO_RANGE):
//	         new to the file system, not to the disk
//	written  written and synced
//
// So new against touched is the disk's own part, and touched against written the
// file system's.
var blockStates = [...]string{"new", "touched", "written"}

const (
	blockFiles    = 16
	blockFile     = 128 << 20
	blockInflight = 8
)

// BlocksRow is what one state of blocks costs, a round after the other.
type BlocksRow struct {
	State  string
	Bytes  int // of a write
	Rounds []BlocksRound
}

// A BlocksRound has every write with its sync.
type BlocksRound struct {
	Began          time.Time
	Seconds        float64
	BytesPerSecond float64
	Took           record.Packed
}

// Blocks measures that in dir, each state in turn in each round. Of each size the
// last row is the written blocks', which the others are held against.
func Blocks(dir string, rounds int) ([]BlocksRow, error) {
	runtime.LockOSThread()
	var all []BlocksRow
	for _, size := range []int{100 << 10, 1 << 20} {
		var rows [len(blockStates)]BlocksRow
		for range rounds {
			for k := len(blockStates) - 1; k >= 0; k-- {
				round, err := blocksOnce(dir, blockStates[k], size)
				if err != nil {
					return nil, err
				}
				rows[k].State, rows[k].Bytes, rows[k].Rounds = blockStates[k], size, append(rows[k].Rounds, round)
			}
		}
		all = append(all, rows[:]...)
	}
	return all, nil
}

// blocksOnce writes all files once, in pieces of size.
func blocksOnce(dir, state string, size int) (round BlocksRound, err error) {
	dir, err = os.MkdirTemp(dir, "blocks")
	if err != nil {
		return round, err
	}
	defer os.RemoveAll(dir)
	arena, err := mem.Map(32<<20, mem.Options{HugePages: true, Lock: true})
	if err != nil {
		return round, err
	}
	defer arena.Unmap()
	path, err := arena.Allocate("path", blockBytes, blockBytes)
	if err != nil {
		return round, err
	}
	buf, err := arena.Allocate("blocks", 8<<20, blockBytes)
	if err != nil {
		return round, err
	}
	for i := range buf.Bytes() {
		buf.Bytes()[i] = byte(i)
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return round, err
	}
	defer unix.Close(root)
	features, err := ioring.Probe()
	if err != nil {
		return round, err
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: blockFiles, Sockets: 1, RootFD: root, ReceiveBuffers: 16, Features: features.Mask, SpinNS: 20e3})
	if err != nil {
		return round, err
	}
	defer ring.Close()
	p := &probe{ring: ring}
	for i := range blockFiles {
		name := fmt.Sprintf("file-%d", i)
		copy(path.Bytes(), name+"\x00")
		if err := p.blockFile(uint32(i), filepath.Join(dir, name), state, path, buf); err != nil {
			return round, fmt.Errorf("%s: %w", name, err)
		}
	}
	var (
		begun [blockInflight]time.Time
		done  [32]ioring.Completion
		next  int
	)
	took := record.NewHistogram()
	each := blockFile / size
	start := func(k int) {
		file, at := next%blockFiles, next/blockFiles*size
		next++
		begun[k] = time.Now()
		p.push(ioring.Op{Code: ioring.Write, Flags: ioring.FlagLink, File: uint32(file), Offset: uint64(at), Buf: buf.Slice(0, size), Token: ioring.MakeToken(kindWrite, 0, uint32(k))})
		p.push(ioring.Op{Code: ioring.Sync, File: uint32(file), Token: ioring.MakeToken(kindSync, 0, uint32(k))})
	}
	from := time.Now()
	for k := range blockInflight {
		start(k)
	}
	for took.Count() < int64(each*blockFiles) {
		for _, c := range done[:ring.Reap(done[:])] {
			switch {
			case c.Result < 0:
				return round, unix.Errno(-c.Result)
			case c.Token.Kind() == kindWrite && int(c.Result) != size:
				return round, fmt.Errorf("a write of %d bytes: %d", size, c.Result)
			case c.Token.Kind() == kindWrite:
				continue
			}
			k := int(c.Token.Slot())
			took.Record(int64(time.Since(begun[k])))
			if next < each*blockFiles {
				start(k)
			}
		}
		if took.Count() < int64(each*blockFiles) {
			ring.Wait(ioring.Never)
		}
	}
	round = BlocksRound{Began: from, Seconds: time.Since(from).Seconds(), Took: took.Pack()}
	round.BytesPerSecond = float64(took.Count()) * float64(size) / round.Seconds
	return round, nil
}

// blockFile makes one file in a state. Its path, relative, is in path.
func (p *probe) blockFile(slot uint32, absolute, state string, path, buf mem.Block) error {
	if err := p.makeFile(slot, blockFile, state != "new", path, buf); err != nil || state != "touched" {
		return err
	}
	f, err := os.OpenFile(absolute, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 0, blockFile); err != nil {
		return fmt.Errorf("FALLOC_FL_ZERO_RANGE: %w", err)
	}
	return f.Sync()
}
