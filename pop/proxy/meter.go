package proxy

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/pop/headroom"
)

// The resources whose use is reported.
const (
	ResourceConnections = "connections" // client connections
	ResourceDescriptors = "descriptors" // open files of the process
	ResourceMemory      = "memory"      // resident bytes of the process
	ResourceCPU         = "cpu"         // processors kept busy
)

// meterInterval is the least time between two readings, because some are dear.
const meterInterval = time.Second

// meter reads what the process uses of the machine. Its methods may be called
// by several goroutines.
type meter struct {
	root string // of the file system that /proc and /sys are read from

	mu   sync.Mutex
	at   time.Time     // of the last reading
	cpu  time.Duration // used until then
	last []headroom.Usage
}

func newMeter(root string) *meter { return &meter{root: root} }

// usage returns the process's use of descriptors, memory and processors, as it
// was at most a second ago. What cannot be read is left out.
func (m *meter) usage() []headroom.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if !m.at.IsZero() && now.Sub(m.at) < meterInterval {
		return m.last
	}
	var usage []headroom.Usage
	add := func(resource string, used, ceiling float64) {
		if used >= 0 && ceiling > 0 {
			usage = append(usage, headroom.Usage{Resource: resource, Used: used, Ceiling: ceiling})
		}
	}
	add(ResourceDescriptors, m.descriptors(), float64(m.descriptorLimit()))
	add(ResourceMemory, m.resident(), m.memoryLimit())
	cpu := processorTime()
	if !m.at.IsZero() {
		// GOMAXPROCS knows the limit of the control group.
		add(ResourceCPU, (cpu-m.cpu).Seconds()/now.Sub(m.at).Seconds(), float64(runtime.GOMAXPROCS(0)))
	}
	m.at, m.cpu, m.last = now, cpu, usage
	return usage
}

// descriptors returns how many are open, negative if that cannot be read.
func (m *meter) descriptors() float64 {
	dir := filepath.Join(m.root, "proc/self/fd")
	// Since Linux 6.2 the directory's size is the number; counting is dear.
	if info, err := os.Stat(dir); err == nil && info.Size() > 0 {
		return float64(info.Size())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return -1
	}
	return float64(len(entries))
}

func (m *meter) descriptorLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return limit.Cur
}

// resident returns the process's resident memory in bytes, negative if that
// cannot be read.
func (m *meter) resident() float64 {
	data, err := os.ReadFile(filepath.Join(m.root, "proc/self/statm"))
	if err != nil {
		return -1
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return -1
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return -1
	}
	return float64(pages) * float64(os.Getpagesize())
}

// memoryLimit returns the bytes that the process may use: the tightest limit of
// its control groups (version 2), else the machine's memory; 0 if unknown.
func (m *meter) memoryLimit() float64 {
	limit := m.machineMemory()
	data, err := os.ReadFile(filepath.Join(m.root, "proc/self/cgroup"))
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(data)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			text, err := os.ReadFile(filepath.Join(m.root, "sys/fs/cgroup", group, "memory.max"))
			if err == nil {
				if n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64); err == nil { // or "max"
					if limit == 0 || float64(n) < limit {
						limit = float64(n)
					}
				}
			}
			if group == "/" {
				break
			}
		}
	}
	return limit
}

func (m *meter) machineMemory() float64 {
	f, err := os.Open(filepath.Join(m.root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return float64(kib) * 1024
		}
	}
	return 0
}

// processorTime returns what the process has used so far, system calls
// included.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
