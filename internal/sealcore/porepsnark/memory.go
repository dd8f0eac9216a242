package porepsnark

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"sealfleet/internal/sealcore/groth16"
)

// MemoryError says that a proof would need more memory than there is.
type MemoryError struct{ Need, Available uint64 } // bytes

func (e *MemoryError) Error() string {
	const gib = 1 << 30
	return fmt.Sprintf("too little memory: the proof needs %.1f GiB, %.1f GiB are available: "+
		"wait for other jobs to end, or raise the memory limit", float64(e.Need)/gib, float64(e.Available)/gib)
}

// enoughMemory compares a proof's need with what the machine and the control group have.
// root is where /proc and /sys are.
func enoughMemory(root string, p *groth16.Params, threads int) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	need := groth16.MemoryNeed(p.Domain(), p.Aux(), threads)
	if have := available(root); need > have {
		return &MemoryError{need, have}
	}
	return nil
}

// available returns how many bytes of memory a process may still take: the smaller of
// what the kernel calls available and what the control groups leave. What cannot be
// read does not count. root is where /proc and /sys are.
func available(root string) uint64 {
	least := uint64(math.MaxUint64)
	if kib, ok := field(path.Join(root, "proc/meminfo"), "MemAvailable:"); ok {
		least = kib << 10
	}
	groups, err := os.ReadFile(path.Join(root, "proc/self/cgroup"))
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path; version 2 has hierarchy 0 and no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, limit, usage, cache := "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, limit, usage, cache = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		default:
			continue
		}
		// Every group up to the root may have a limit; in a container only its own is seen.
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			at := path.Join(root, mount, dir)
			maximum, ok1 := number(path.Join(at, limit))
			used, ok2 := number(path.Join(at, usage))
			if ok1 && ok2 {
				// Pages of files that were only read, such as parameters, go when they must.
				if file, ok := field(path.Join(at, "memory.stat"), cache); ok {
					used -= min(used, file)
				}
				least = min(least, maximum-min(maximum, used))
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// number reads a file that holds one number; "max" is none.
func number(name string) (uint64, bool) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// field reads the number that follows a name at the start of a line.
func field(name, key string) (uint64, bool) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == key {
			n, err := strconv.ParseUint(words[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
