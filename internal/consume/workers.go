package consume

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sealfleet/internal/phases"
)

// Worker is one entry of WORKERS: so many slots of their own for some phases.
type Worker struct {
	Num    int
	Phases []phases.Step // in a sector's order, each once
}

// String writes the entry as WORKERS has it.
func (w Worker) String() string {
	names := make([]string, len(w.Phases))
	for i, p := range w.Phases {
		names[i] = string(p)
	}
	return strconv.Itoa(w.Num) + ":" + strings.Join(names, ",")
}

// Workers is the list that the old system had as [[worker]] sections (num and
// supported_phase): "10:p1;1:p2,p3;1:p4,p5;4:p6".
type Workers []Worker

const maxSlots = 10_000 // of an entry; a thread each was the old limit

// UnmarshalText reads the list. Phases may have their old names or bits.
func (w *Workers) UnmarshalText(text []byte) error {
	var list Workers
	for entry := range strings.SplitSeq(string(text), ";") {
		if strings.TrimSpace(entry) == "" {
			continue // a ';' at the end
		}
		worker, err := parseWorker(entry)
		if err != nil {
			return fmt.Errorf("entry %q: %w", strings.TrimSpace(entry), err)
		}
		list = append(list, worker)
	}
	if len(list) == 0 {
		return errors.New("no entry: write number:phase,phase;number:phase")
	}
	*w = list
	return nil
}

func parseWorker(entry string) (Worker, error) {
	num, list, found := strings.Cut(entry, ":")
	if !found {
		return Worker{}, errors.New("write number:phase,phase")
	}
	n, err := strconv.Atoi(strings.TrimSpace(num))
	if err != nil || n < 1 || n > maxSlots {
		return Worker{}, fmt.Errorf("%q slots: use a number from 1 to %d", strings.TrimSpace(num), maxSlots)
	}
	w := Worker{Num: n}
	for name := range strings.SplitSeq(list, ",") {
		p, err := phases.ParsePhase(strings.TrimSpace(name))
		if err != nil {
			return Worker{}, err
		}
		if slices.Contains(w.Phases, p) {
			return Worker{}, fmt.Errorf("phase %s is there twice", p)
		}
		w.Phases = append(w.Phases, p)
	}
	slices.SortFunc(w.Phases, func(a, b phases.Step) int { return a.Bit() - b.Bit() })
	return w, nil
}

// String writes the list as WORKERS has it.
func (w Workers) String() string {
	parts := make([]string, len(w))
	for i, e := range w {
		parts[i] = e.String()
	}
	return strings.Join(parts, ";")
}

// Groups is the list of groups that a host works for.
type Groups []string

// UnmarshalText reads names, or the old system's numbers, with commas between them.
func (g *Groups) UnmarshalText(text []byte) error {
	var list Groups
	for name := range strings.SplitSeq(strings.Trim(string(text), "[] "), ",") {
		group, err := phases.ParseGroup(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		if slices.Contains(list, group) {
			return fmt.Errorf("group %s is there twice", group)
		}
		list = append(list, group)
	}
	*g = list
	return nil
}
