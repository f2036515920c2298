package ioring

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FeatureMask is a set of features of the kernel's io_uring that Tailbound
// uses where they are there and does without where they are not.
type FeatureMask uint64

// The features beyond what Linux 5.19 has.
const (
	FeatureSingleIssuer  FeatureMask = 1 << iota // 6.0: the kernel need not guard against other submitters
	FeatureDeferTaskrun                          // 6.1: completions are worked off when the shard asks, never amid its turn
	FeatureRecvMultishot                         // 6.0: one receive serves a connection for its life
	FeatureFileRange                             // 6.0: the kernel picks slots for accepted sockets
	FeatureNoSQArray                             // 6.6: one indirection less for each submission
	featuresEnd

	// AllFeatures is every feature there is.
	AllFeatures = featuresEnd - 1
)

// Has says whether every feature of f is in m.
func (m FeatureMask) Has(wanted FeatureMask) bool { return m&wanted == wanted }

// feature names a feature, and says what doing without it costs.
type feature struct {
	bit   FeatureMask
	name  string
	since string
	costs string
}

var features = []feature{
	{FeatureSingleIssuer, "single-issuer", "6.0", "a lock in the kernel for each submission"},
	{FeatureDeferTaskrun, "defer-taskrun", "6.1", "completions interrupt a turn: a wider p99"},
	{FeatureRecvMultishot, "recv-multishot", "6.0", "one more submission for each piece received"},
	{FeatureFileRange, "file-range", "6.0", "two more system calls for each connection accepted"},
	{FeatureNoSQArray, "no-sqarray", "6.6", "nothing that can be measured"},
}

// Features is what a kernel has.
type Features struct {
	Kernel string // its release
	Mask   FeatureMask
}

// Found lists the names of the features in use, Missing those that are not,
// each with what that costs.
func (f Features) Found() (names []string) {
	for _, each := range features {
		if f.Mask.Has(each.bit) {
			names = append(names, each.name)
		}
	}
	return names
}

// Missing lists the features that are not used, with the release that brought
// them and what doing without costs.
func (f Features) Missing() (lines []string) {
	for _, each := range features {
		if !f.Mask.Has(each.bit) {
			lines = append(lines, fmt.Sprintf("%s (Linux %s): costs %s", each.name, each.since, each.costs))
		}
	}
	return lines
}

// ParseMask reads --ring-features: "all", a release such as "5.19" (what that
// kernel has), or names with - before them to leave out: "-defer-taskrun".
// Several are joined by commas, applied from left to right.
func ParseMask(text string) (FeatureMask, error) {
	mask := AllFeatures
	for _, word := range strings.Split(text, ",") {
		word = strings.TrimSpace(word)
		switch {
		case word == "" || word == "all":
			mask = AllFeatures
			continue
		case word[0] >= '0' && word[0] <= '9':
			major, minor, err := release(word)
			if err != nil || major < 5 || major == 5 && minor < 19 {
				return 0, fmt.Errorf("ring features %q: %s is not a release of Linux from 5.19 on", text, word)
			}
			mask = 0
			for _, each := range features {
				a, b, _ := release(each.since)
				if a < major || a == major && b <= minor {
					mask |= each.bit
				}
			}
			continue
		}
		name := strings.TrimLeft(word, "+-")
		found := false
		for _, each := range features {
			if each.name == name {
				found = true
				if word[0] == '-' {
					mask &^= each.bit
				} else {
					mask |= each.bit
				}
			}
		}
		if !found {
			var names []string
			for _, each := range features {
				names = append(names, each.name)
			}
			return 0, fmt.Errorf("ring features %q: there is no feature %q; there are: %s", text, name, strings.Join(names, ", "))
		}
	}
	if !mask.Has(FeatureSingleIssuer) {
		mask &^= FeatureDeferTaskrun // the kernel wants the one for the other
	}
	return mask, nil
}

func release(text string) (major, minor int, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &major, &minor)
	return major, minor, err
}

// Probe finds out what this kernel has. Errors: no io_uring, and why; older
// than 5.19.
func Probe() (Features, error) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return Features{}, err
	}
	features := Features{Kernel: unix.ByteSliceToString(uname.Release[:])}
	try := func(flags uint32) (int, unix.Errno) {
		setup := params{flags: flags}
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&setup)), 0)
		return int(fd), errno
	}
	fd, errno := try(0)
	if errno != 0 {
		return features, setupError(errno, KernelOptions{Entries: 8})
	}
	defer unix.Close(fd)
	if major, minor, err := release(features.Kernel); err == nil && (major < 5 || major == 5 && minor < 19) {
		return features, fmt.Errorf("the kernel is Linux %s; Tailbound needs 5.19 or newer (buffer rings and multishot accept)", features.Kernel)
	}
	for _, x := range []struct {
		bit   FeatureMask
		flags uint32
	}{
		{FeatureSingleIssuer, setupSingleIssuer},
		{FeatureDeferTaskrun, setupSingleIssuer | setupDeferTaskrun},
		{FeatureNoSQArray, setupNoSQArray},
	} {
		if fd, errno := try(x.flags); errno == 0 {
			unix.Close(fd)
			features.Mask |= x.bit
		}
	}
	ops, err := probeOps(fd)
	if err != nil {
		return features, err
	}
	if ops > opSendZC {
		features.Mask |= FeatureRecvMultishot | FeatureFileRange // Linux 6.0, as send_zc is
	}
	return features, nil
}

// probeOps is how many operations the kernel knows.
func probeOps(fd int) (int, error) {
	type probe struct {
		lastOp, opsLen uint8
		resv           uint16
		resv2          [3]uint32
		ops            [256]struct {
			op, resv uint8
			flags    uint16
			resv2    uint32
		}
	}
	var probed probe
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), registerProbe, uintptr(unsafe.Pointer(&probed)), 256, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("io_uring: asking which operations there are: %w", errno)
	}
	return int(probed.lastOp) + 1, nil
}

// Direct is what a directory's file system asks of direct I/O.
type Direct struct {
	FileSystem string
	Alignment  int // of memory and offsets, in bytes
}

var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs", unix.RAMFS_MAGIC: "ramfs",
}

// ErrNotDurable says that a file system keeps nothing through a power cut.
var ErrNotDurable = errors.New("the file system is memory")

// DirectIO judges the directory dirfd by its file system, not by trying: tmpfs
// accepts O_DIRECT on recent kernels and stores nothing. Errors: ErrNotDurable;
// an alignment above 4096; no direct I/O.
func DirectIO(dirfd int) (Direct, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dirfd, &st); err != nil {
		return Direct{}, err
	}
	direct := Direct{FileSystem: fileSystems[int64(st.Type)], Alignment: 4096}
	if direct.FileSystem == "" {
		direct.FileSystem = fmt.Sprintf("file system type %#x", st.Type)
	}
	if direct.FileSystem == "tmpfs" || direct.FileSystem == "ramfs" {
		return direct, fmt.Errorf("%s: %w", direct.FileSystem, ErrNotDurable)
	}
	fd, err := unix.Openat(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	switch err {
	case nil:
	case unix.EOPNOTSUPP, unix.EISDIR, unix.ENOSPC, unix.EDQUOT:
		return direct, nil // no unnamed files here, or no room for one: the first real open will tell
	case unix.EINVAL:
		return direct, fmt.Errorf("%s refuses direct I/O: %w", direct.FileSystem, err)
	default:
		return direct, fmt.Errorf("%s: making a file: %w", direct.FileSystem, err)
	}
	defer unix.Close(fd)
	var stat unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stat); err == nil && stat.Mask&unix.STATX_DIOALIGN != 0 {
		if stat.Dio_offset_align == 0 {
			return direct, fmt.Errorf("%s has no direct I/O for this directory", direct.FileSystem)
		}
		if stat.Dio_offset_align > 4096 {
			return direct, fmt.Errorf("%s wants direct I/O aligned to %d bytes; Tailbound writes blocks of 4096", direct.FileSystem, stat.Dio_offset_align)
		}
	}
	return direct, nil
}
