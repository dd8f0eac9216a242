package host

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Cores shares the machine's cores among the phases, and keeps some free: p2 and p3 take
// every core that they get, and the old system's operators could not ssh in.
type Cores struct {
	allowed []int
	groups  [][]int // of allowed, by shared L3 cache or else NUMA node
	note    string

	mu   sync.Mutex
	busy []int // phases that run, by group
}

// NewCores reads the cores that this process may use and reserves some of them; machines
// with two cores or fewer reserve none.
func NewCores(reserve int) *Cores {
	var set unix.CPUSet
	var all []int
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		for i := range len(set) * 64 {
			if set.IsSet(i) {
				all = append(all, i)
			}
		}
	} else {
		for i := range runtime.NumCPU() {
			all = append(all, i)
		}
	}
	return newCores("/sys", all, reserve)
}

func newCores(sys string, all []int, reserve int) *Cores {
	c := &Cores{}
	switch {
	case reserve <= 0:
		c.allowed, c.note = all, "none reserved"
	case len(all) <= 2 || len(all) <= reserve:
		c.allowed, c.note = all, fmt.Sprintf("none reserved: this machine has only %d", len(all))
	default:
		kept := reserved(sys, all, reserve)
		for _, n := range all {
			if !slices.Contains(kept, n) {
				c.allowed = append(c.allowed, n)
			}
		}
		c.note = fmt.Sprintf("%s reserved for the system", formatCPUs(kept))
	}
	c.groups = groupCores(sys, c.allowed)
	c.busy = make([]int, len(c.groups))
	if len(c.groups) > 1 {
		c.note += fmt.Sprintf(", %d groups by shared cache", len(c.groups))
	}
	return c
}

// reserved chooses the first core and what shares its execution units, and so on: half a
// core is not free while its other half computes.
func reserved(sys string, all []int, n int) []int {
	var kept []int
	for _, core := range all {
		for _, sibling := range append([]int{core}, cpuList(filepath.Join(sys, fmt.Sprintf("devices/system/cpu/cpu%d/topology/thread_siblings_list", core)))...) {
			if len(kept) < n && slices.Contains(all, sibling) && !slices.Contains(kept, sibling) {
				kept = append(kept, sibling)
			}
		}
	}
	slices.Sort(kept)
	return kept
}

func groupCores(sys string, allowed []int) [][]int {
	byKey := map[string][]int{}
	var keys []string
	for _, core := range allowed {
		key := l3Of(sys, core)
		if key == "" {
			key = nodeOf(sys, core)
		}
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], core)
	}
	groups := make([][]int, len(keys))
	for i, k := range keys {
		groups[i] = byKey[k]
	}
	return groups
}

// l3Of names the L3 cache of a core by the cores that share it.
func l3Of(sys string, core int) string {
	dir := filepath.Join(sys, fmt.Sprintf("devices/system/cpu/cpu%d/cache", core))
	for i := range 8 {
		level, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("index%d/level", i)))
		if err == nil && strings.TrimSpace(string(level)) == "3" {
			text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("index%d/shared_cpu_list", i)))
			if err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	return ""
}

func nodeOf(sys string, core int) string {
	nodes, _ := filepath.Glob(filepath.Join(sys, fmt.Sprintf("devices/system/cpu/cpu%d/node*", core)))
	if len(nodes) == 0 {
		return "all"
	}
	return filepath.Base(nodes[0])
}

// cpuList reads a file such as "0-3,8". A file that is not there has no cores in it.
func cpuList(path string) []int {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var list []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return list
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil || b-a > 1<<16 {
				return list
			}
		}
		for n := a; n <= b; n++ {
			list = append(list, n)
		}
	}
	return list
}

func formatCPUs(list []int) string {
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, strconv.Itoa(list[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// Allowed returns the cores that phases may use.
func (c *Cores) Allowed() []int { return c.allowed }

// Note says for people which cores are kept free.
func (c *Cores) Note() string { return c.note }

// Group returns the cores for a phase that runs on one core and shares memory with
// nobody (p1): those of the least busy group. Others get all that are allowed. free must
// be called when the phase has ended.
func (c *Cores) Group(narrow bool) (cores []int, free func()) {
	if !narrow || len(c.groups) < 2 {
		return c.allowed, func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	best := 0
	for i := range c.groups {
		// busy/size, without a fraction
		if c.busy[i]*len(c.groups[best]) < c.busy[best]*len(c.groups[i]) {
			best = i
		}
	}
	c.busy[best]++
	return c.groups[best], sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy[best]--
	})
}

// StartOn calls start, which starts a child process, so that the child runs on these
// cores from its first instruction. If the kernel does not allow them (the control group
// was changed) the child runs where it may; the error tells, started or not.
func StartOn(cores []int, start func() error) (pinErr, err error) {
	if len(cores) == 0 {
		return nil, start()
	}
	// A child inherits the cores of the thread that starts it. While a thread is locked the
	// runtime makes no others from it, so nobody else inherits them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if pinErr = unix.SchedGetaffinity(0, &before); pinErr != nil {
		return pinErr, start()
	}
	for _, n := range cores {
		set.Set(n)
	}
	if pinErr = unix.SchedSetaffinity(0, &set); pinErr != nil {
		return pinErr, start()
	}
	err = start()
	return unix.SchedSetaffinity(0, &before), err
}
