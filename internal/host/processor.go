package host

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/cpu"

	"sealfleet/internal/phases"
)

// p1 hashes 1,280 bytes for each label (two blocks of replica id and index, 37 parents of
// 32 bytes, padding), for each node of each layer, one after the other on one core.
// Besides that it fetches parents from memory; with SHA extensions at 1.9 GB/s the field
// reports 3 h for 32 GiB, which makes it a third more than the hashing alone.
const (
	labelBytes = 1280
	nodeBytes  = 32
	overhead   = 1.35
	// without SHA extensions the old note reports 32 h for 32 GiB.
	slowHours = 32
)

// shaRate measures how many bytes of SHA-256 one core does in a second, in about 20 ms.
func shaRate() float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	block := make([]byte, 256*kib)
	var best float64
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
		at := time.Now()
		sha256.Sum256(block)
		best = max(best, float64(len(block))/time.Since(at).Seconds()) // the best: others use the core too
	}
	return best
}

// hasSHA tells whether the processor has instructions for SHA-256, as the kernel sees it.
// root is where /proc is.
func hasSHA(root string) bool {
	text, err := os.ReadFile(path.Join(root, "proc/cpuinfo"))
	if err != nil {
		return cpu.ARM64.HasSHA2
	}
	for line := range strings.Lines(string(text)) {
		name, flags, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "flags", "Features": // x86, ARM; the first processor speaks for all
			list := strings.Fields(flags)
			return slices.Contains(list, "sha_ni") || slices.Contains(list, "sha2")
		}
	}
	return false
}

// p1Seconds estimates how long one p1 takes a core.
func p1Seconds(sector uint64, rate float64, extensions bool) float64 {
	layers := uint64(2)
	for _, s := range sizes {
		if s.bytes == sector {
			layers = s.layers
		}
	}
	t := float64(sector/nodeBytes*layers*labelBytes) / rate * overhead
	if !extensions && production(sector) {
		// Whatever the sample says: what the field measured was the whole p1.
		t = max(t, slowHours*3600*float64(sector)/(32*gib))
	}
	return t
}

// checkProcessor judges what p1 would take.
func checkProcessor(sector uint64, rate float64, extensions bool) Finding {
	size := sector
	if size == 0 {
		size = 32 * gib
	}
	t := time.Duration(p1Seconds(size, rate, extensions) * float64(time.Second))
	took := t.Round(time.Millisecond).String()
	if t >= time.Hour {
		took = fmt.Sprintf("%.1f h", t.Hours())
	}
	with := "SHA extensions"
	if !extensions {
		with = "no SHA extensions"
	}
	evidence := fmt.Sprintf("%s, SHA-256 %.2f GB/s on one core: p1 of %s takes about %s (in the field: 3 h of 32GiB with SHA extensions, 32 h without)",
		with, rate/1e9, SizeName(size), took)
	mend := "run p1 on a processor with SHA extensions (AMD Zen, Intel Ice Lake or later), and take p1 out of WORKERS here"
	switch {
	case t > chainLimit:
		return found("p1_too_slow", graver(sector), "processor", mend, "%s; the chain gives 24h from ticket to precommit", evidence)
	case t > chainLimit*3/4:
		return found("p1_slow", Warn, "processor", mend, "%s; p2 and the message must fit into the chain's 24h as well", evidence)
	}
	return found("processor", OK, "processor", "", "%s", evidence)
}

// checkVectors tells of what p2 makes use of.
func checkVectors(kernels string) Finding {
	has := "no AVX-512"
	if cpu.X86.HasAVX512 {
		has = "AVX-512"
	}
	if cpu.X86.HasAVX512IFMA {
		has += " with IFMA"
	}
	if kernels != "" {
		has += "; " + kernels
	}
	return found("vectors", Info, "processor", "", "%s", has)
}

// checkCores compares the slots with the cores that they may use.
func checkCores(slots map[phases.Step]int, sector uint64, c *Cores) Finding {
	n, p1 := len(c.Allowed()), slots[phases.P1]
	evidence := fmt.Sprintf("%d cores for phases (%s), %d slots of p1", n, c.Note(), p1)
	if p1 > n && (sector == 0 || sector >= 512*mib) {
		if sector == 0 {
			return found("cores_few", Info, "WORKERS", "", "%s: with sectors of 512MiB and more %d of them will wait", evidence, p1-n)
		}
		return found("cores_few", Warn, "WORKERS", fmt.Sprintf("set at most %d slots for p1", n), "%s: each keeps a core busy, the others will wait", evidence)
	}
	return found("cores", OK, "WORKERS", "", "%s", evidence)
}

// checkMemory compares the slots with the memory.
func checkMemory(slots map[phases.Step]int, sector, total uint64) Finding {
	if sector == 0 {
		return found("memory", OK, "memory", "", "%s in all; SECTOR_SIZE would tell whether it is enough", Bytes(total))
	}
	var all, cache, most uint64
	var big phases.Step
	for _, p := range phases.Phases() {
		n, known := NeedOf(sector, p)
		if !known || slots[p] == 0 {
			continue
		}
		all += uint64(slots[p]) * n.Memory
		cache += uint64(slots[p]) * n.Cache
		if n.Memory > most {
			most, big = n.Memory, p
		}
	}
	evidence := fmt.Sprintf("%s in all; the slots take up to %s with %s sectors, and p1 wants %s more for mapped layers", Bytes(total), Bytes(all), SizeName(sector), Bytes(cache))
	switch {
	case most > total:
		return found("memory_never", Refuse, "memory", "take "+string(big)+" out of WORKERS here, or add memory", "%s; %s alone needs %s", evidence, big, Bytes(most))
	case all > total:
		return found("memory_few", Warn, "memory", "fewer slots in WORKERS, or more memory; phases wait until there is enough", "%s", evidence)
	case all+cache > total && production(sector):
		return found("memory_cache", Warn, "memory", "fewer slots for p1 in WORKERS, or more memory: p1 crawls where two layers do not fit", "%s", evidence)
	}
	return found("memory", OK, "memory", "", "%s", evidence)
}
