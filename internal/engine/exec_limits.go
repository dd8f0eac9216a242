package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"sealfleet/internal/phases"
)

// Limits are what a program may use in one phase.
type Limits struct {
	Time   TimeLimit
	Memory MemoryLimit
	// Output is how many bytes it may write to stdout and stderr together. 0 stands for 64 MiB.
	Output int64
	// Poll is how often its memory is looked at. 0 stands for half a second.
	Poll time.Duration
}

// Bounds are the limits as the engine is told them.
type Bounds struct {
	Seconds     int64 `json:"seconds,omitempty"`
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	OutputBytes int64 `json:"output_bytes,omitempty"`
}

const (
	defaultOutput = 64 << 20
	defaultPoll   = 500 * time.Millisecond
)

// marshal writes the request, with what a program is told besides.
func (c *Command) marshal(r Request) ([]byte, error) {
	if c.Limits == nil {
		return json.Marshal(r)
	}
	return json.Marshal(struct {
		Request
		Bounds  *Bounds `json:"limits"`
		Scratch string  `json:"scratch,omitempty"`
	}{r, c.Limits.bounds(r.Phase), c.Scratch})
}

func (l *Limits) output() int64 {
	if l.Output > 0 {
		return l.Output
	}
	return defaultOutput
}

func (l *Limits) poll() time.Duration {
	if l.Poll > 0 {
		return l.Poll
	}
	return defaultPoll
}

func (l *Limits) bounds(p phases.Step) *Bounds {
	return &Bounds{Seconds: int64(l.Time.Of(p).Seconds()), MemoryBytes: l.Memory.Bytes(), OutputBytes: l.output()}
}

// TimeLimit is how long a program may take for a phase; no entry means no limit. Its text
// is a duration for all phases (24h), or some per phase (p1=168h,p4=24h).
type TimeLimit map[phases.Step]time.Duration

// DefaultTimeLimit is far more than any phase takes: 32 GiB on a slow host.
const DefaultTimeLimit = "p1=168h,p2=48h,p3=4h,p4=48h"

// Of returns the limit of a phase, 0 for none.
func (t TimeLimit) Of(p phases.Step) time.Duration { return t[p] }

// UnmarshalText reads a time limit. 0 means none.
func (t *TimeLimit) UnmarshalText(text []byte) error {
	out := TimeLimit{}
	for entry := range strings.SplitSeq(string(text), ",") {
		name, value, found := strings.Cut(strings.TrimSpace(entry), "=")
		list := execPhases
		if !found {
			if strings.Contains(string(text), ",") {
				return fmt.Errorf("entry %q: write one duration for all phases, or phase=duration for each", entry)
			}
			value = name
		} else {
			p, err := phases.ParsePhase(name)
			if err != nil {
				return err
			}
			if !slices.Contains(execPhases, p) {
				return fmt.Errorf("%s is never done by another program", p)
			}
			if _, twice := out[p]; twice {
				return fmt.Errorf("%s is given twice", p)
			}
			list = []phases.Step{p}
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is no duration of 0 or more: write 90m or 24h", value)
		}
		for _, p := range list {
			out[p] = d
		}
	}
	*t = out
	return nil
}

// MemoryLimit is how much memory a program and all that it started may have together. Its
// text is a size (64GiB), a part of this host's memory (90%), or 0 for no limit.
type MemoryLimit struct {
	bytes   int64
	percent int
}

// DefaultMemoryLimit leaves the host enough to kill the program before the kernel chooses
// what to kill.
const DefaultMemoryLimit = "90%"

// MemoryBytes is a limit of that many bytes.
func MemoryBytes(n int64) MemoryLimit { return MemoryLimit{bytes: n} }

// UnmarshalText reads a memory limit.
func (m *MemoryLimit) UnmarshalText(text []byte) error {
	if number, found := strings.CutSuffix(string(text), "%"); found {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > 100 {
			return errors.New("a part of the memory is 1% to 100%")
		}
		*m = MemoryLimit{percent: n}
		return nil
	}
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<60 {
		return errors.New("write a size such as 64GiB, a part such as 90%, or 0 for no limit")
	}
	*m = MemoryLimit{bytes: int64(n)}
	return nil
}

// Bytes returns the limit, 0 for none.
func (m MemoryLimit) Bytes() int64 {
	if m.percent == 0 {
		return m.bytes
	}
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return statusKiB(data, "MemTotal:") << 10 / 100 * int64(m.percent)
}
