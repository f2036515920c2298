package record

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says where numbers come from; numbers of two are not compared.
type Machine struct {
	Time         string
	Commit       string `json:",omitempty"`
	Kernel       string
	CommandLine  string `json:",omitempty"`
	CPU          string
	CPUs         int
	Hypervisor   string            `json:",omitempty"`
	Mitigations  map[string]string `json:",omitempty"` // what the kernel does against each flaw of the CPU
	ClockSource  string            `json:",omitempty"`
	Governor     string            `json:",omitempty"`
	MemoryMiB    int
	HugePages    string `json:",omitempty"`
	FileSystem   string
	Disk         string `json:",omitempty"` // and its scheduler and write cache
	Go           string
	Load         string // at the start, 1 minute
	RunningTasks string `json:",omitempty"`
}

// Describe looks at the machine, and at the file system that dir is on.
func Describe(dir string) Machine {
	m := Machine{Time: time.Now().UTC().Format(time.RFC3339), CPUs: runtime.NumCPU(), Go: runtime.Version(), Commit: commit()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	m.CommandLine = text("/proc/cmdline")
	info := text("/proc/cpuinfo")
	if _, after, ok := strings.Cut(info, "model name"); ok {
		line, _, _ := strings.Cut(after, "\n")
		m.CPU = strings.TrimLeft(line, "\t :")
	}
	if strings.Contains(info, " hypervisor") {
		m.Hypervisor = strings.TrimSpace("yes " + text("/sys/class/dmi/id/sys_vendor") + " " + text("/sys/class/dmi/id/product_name"))
	}
	flaws, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, f := range flaws {
		if m.Mitigations == nil {
			m.Mitigations = map[string]string{}
		}
		m.Mitigations[filepath.Base(f)] = text(f)
	}
	m.ClockSource = text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	m.Governor = text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	m.HugePages = text("/sys/kernel/mm/transparent_hugepage/enabled")
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.MemoryMiB = int(s.Totalram * uint64(s.Unit) >> 20)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		m.FileSystem = fileSystem(int64(fs.Type))
	}
	m.Disk = disk(dir)
	if f := strings.Fields(text("/proc/loadavg")); len(f) > 3 {
		m.Load, m.RunningTasks = f[0], f[3]
	}
	return m
}

// Lines say it to people.
func (m Machine) Lines() string {
	virtual := ""
	if m.Hypervisor != "" {
		virtual = ", virtual"
	}
	return fmt.Sprintf("%s  commit %s  %s\n%s, %d CPUs%s, %d MiB, Linux %s, %s, load %s at start\n",
		m.Time, m.Commit, m.Go, m.CPU, m.CPUs, virtual, m.MemoryMiB, m.Kernel, m.FileSystem, m.Load)
}

func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// commit is what this binary was built from, or, of one without that in it,
// what the directory it was started in is at.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		revision, dirty := "", ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
		if revision != "" {
			return revision + dirty
		}
	}
	b, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// device is the block device that dir is on, as /sys has it; "" where it is on
// none of its own, as of tmpfs.
func device(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	at, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return ""
	}
	if text(filepath.Join(at, "partition")) != "" {
		at = filepath.Dir(at)
	}
	return at
}

// disk names the block device that dir is on, with what decides what a sync
// costs on it.
func disk(dir string) string {
	at := device(dir)
	if at == "" {
		return ""
	}
	queue := filepath.Join(at, "queue")
	return fmt.Sprintf("%s %s, scheduler %s, %s", filepath.Base(at), text(filepath.Join(at, "device/model")), text(filepath.Join(queue, "scheduler")), text(filepath.Join(queue, "write_cache")))
}

// DeviceWritten is how many bytes the block device that dir is on has written
// since the machine started, for whomever; 0: it is not known (the kernel's
// Documentation/block/stat: the seventh figure, in sectors of 512 bytes).
func DeviceWritten(dir string) int64 {
	at := device(dir)
	if at == "" {
		return 0
	}
	f := strings.Fields(text(filepath.Join(at, "stat")))
	if len(f) < 7 {
		return 0
	}
	sectors, err := strconv.ParseInt(f[6], 10, 64)
	if err != nil {
		return 0
	}
	return sectors * 512
}

func fileSystem(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs: a sync costs nothing here, do not quote"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("%#x", magic)
}
