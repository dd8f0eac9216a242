// Package memory tells how much memory there is: the machine's, or what the control groups of this
// process allow.
package memory

import (
	"bufio"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Total returns how much memory the phases can have in all: the machine's, or what
// its control group allows. root is where /proc and /sys are.
func Total(root string) uint64 {
	total, ok := meminfo(root, "MemTotal:")
	if !ok {
		total = math.MaxUint64
	}
	for _, g := range groupsOf(root) {
		total = min(total, g.limit)
	}
	return total
}

// Available returns how many bytes may still be taken: the smaller of what the kernel calls
// available and what the control groups leave. What cannot be read does not count.
func Available(root string) uint64 {
	free, ok := meminfo(root, "MemAvailable:")
	if !ok {
		free = math.MaxUint64
	}
	for _, g := range groupsOf(root) {
		free = min(free, g.limit-min(g.limit, g.used))
	}
	return free
}

func meminfo(root, key string) (uint64, bool) {
	kib, ok := Field(path.Join(root, "proc/meminfo"), key)
	return kib << 10, ok
}

type group struct{ limit, used uint64 }

// groupsOf reads the limits of this process's control group and of those above it.
func groupsOf(root string) []group {
	text, err := os.ReadFile(path.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var groups []group
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path
		if len(parts) != 3 {
			continue
		}
		mount, limit, usage, cache := "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
		if parts[1] != "" {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			mount, limit, usage, cache = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			at := path.Join(root, mount, dir)
			most, ok1 := number(path.Join(at, limit))
			used, ok2 := number(path.Join(at, usage))
			if ok1 && ok2 {
				if file, ok := Field(path.Join(at, "memory.stat"), cache); ok {
					used -= min(used, file) // goes when it must
				}
				groups = append(groups, group{most, used})
			}
			if dir == "/" {
				break
			}
		}
	}
	return groups
}

// number reads a file that holds one number; "max" is none.
func number(name string) (uint64, bool) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// Field reads "key value" of a file with such lines.
func Field(name, key string) (uint64, bool) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		parts := strings.Fields(s.Text())
		if len(parts) >= 2 && parts[0] == key {
			n, err := strconv.ParseUint(parts[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
