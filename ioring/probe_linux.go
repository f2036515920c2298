package ioring

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FeatureMask is a set of features of io_uring that Tailbound uses if the kernel has them.
type FeatureMask uint64

// The features beyond what Linux 5.19 has.
const (
	FeatureSingleIssuer  FeatureMask = 1 << iota // 6.0: the kernel takes no lock against other submitters
	FeatureDeferTaskrun                          // 6.1: the kernel's work for completions runs when the shard asks, not in its turn
	FeatureRecvMultishot                         // 6.0: one receive serves a connection as long as it lasts
	FeatureFileRange                             // 6.0: the kernel picks the slots of accepted sockets
	FeatureNoSQArray                             // 6.6: one indirection less for each submission
	featuresEnd

	// AllFeatures is the set of all features.
	AllFeatures = featuresEnd - 1
)

// Has reports whether all of the wanted features are in the set.
func (m FeatureMask) Has(wanted FeatureMask) bool { return m&wanted == wanted }

// feature is a feature's name, and what its absence costs.
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

// Features is which features a kernel has.
type Features struct {
	Kernel string // its release
	Mask   FeatureMask
}

// Found is the names of the features that the kernel has.
func (f Features) Found() (names []string) {
	for _, each := range features {
		if f.Mask.Has(each.bit) {
			names = append(names, each.name)
		}
	}
	return names
}

// Missing is the features that the kernel does not have, one line each, with the first release
// that has it and what its absence costs.
func (f Features) Missing() (lines []string) {
	for _, each := range features {
		if !f.Mask.Has(each.bit) {
			lines = append(lines, fmt.Sprintf("%s (Linux %s): costs %s", each.name, each.since, each.costs))
		}
	}
	return lines
}

// ParseMask parses the value of --ring-features: "all", a release such as "5.19" for the
// features of that kernel, or a name with - before it to leave it out, as in
// "-defer-taskrun". Several are joined by commas and apply from left to right.
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

// release parses the first two numbers of a kernel's release.
func release(text string) (major, minor int, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &major, &minor)
	return major, minor, err
}

// Probe asks the kernel which features it has. Errors: there is no io_uring, with the reason;
// the kernel is older than 5.19.
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

// probeOps is how many operations the kernel's io_uring has.
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

// Direct is a directory's file system, and what it requires of direct I/O.
type Direct struct {
	FileSystem string
	Alignment  int // of memory and offsets, in bytes
}

var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs", unix.RAMFS_MAGIC: "ramfs",
}

// ErrNotDurable is the error of a file system that keeps nothing through a power cut.
var ErrNotDurable = errors.New("the file system is memory")

// DirectIO checks the file system of the directory dirfd. A trial alone would not do, as tmpfs
// accepts O_DIRECT on recent kernels and stores nothing. Errors: ErrNotDurable; an alignment
// above 4096; no direct I/O.
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
		return direct, nil // no unnamed files, or no room for one: the first open of a real file will show it
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
