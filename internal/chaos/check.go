package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/chaos/ledger"
	"sealfleet/internal/phases"
)

// faults collects broken promises; of one sort the first few are enough.
type faults map[string][]string

func (f faults) add(sort, format string, args ...any) {
	const enough = 8
	if len(f[sort]) < enough {
		f[sort] = append(f[sort], fmt.Sprintf(format, args...))
	} else if len(f[sort]) == enough {
		f[sort] = append(f[sort], "and more")
	}
}

func (f faults) err() error {
	var all []error
	for sort, list := range f {
		all = append(all, fmt.Errorf("%s:\n  %s", sort, strings.Join(list, "\n  ")))
	}
	return errors.Join(all...)
}

// checkLog holds the log, read anew from its beginning, against what was promised.
func (r *run) checkLog(ctx context.Context, b *bus.Bus) error {
	broken := faults{}
	var log []phases.Event
	if _, err := b.Replay(ctx, func(e phases.Event) error { log = append(log, e); return nil }); err != nil {
		return err
	}
	r.report.Events = len(log)
	at := map[uint64]string{}
	bySector := map[string][]phases.Event{}
	for _, e := range log {
		at[e.Seq] = e.ID
		bySector[e.Sector] = append(bySector[e.Sector], e)
	}
	r.witness.mu.Lock()
	for seq, id := range r.witness.seen {
		if at[seq] != id {
			broken.add("an event that was there is lost", "sequence %d, %s: now %q", seq, id, at[seq])
		}
	}
	for _, text := range r.witness.mismatch {
		broken.add("the log changed", "%s", text)
	}
	for _, s := range r.witness.acked {
		if at[s.Seq] == "" {
			broken.add("an acknowledged event is lost", "submission of %s at %d", s.Sector, s.Seq)
		}
	}
	r.witness.mu.Unlock()
	lines, err := ledger.Read(r.ledgerPath())
	if err != nil {
		return err
	}
	effects := map[string]int{}
	for _, l := range lines {
		switch l.What {
		case ledger.Start:
			r.report.Runs++
		case ledger.Effect:
			effects[l.Sector+" "+string(l.Phase)]++
		}
	}
	r.overlaps(lines)
	for n := range r.Sectors {
		r.checkSector(phases.SectorID(miner, uint64(n+1)), bySector, effects, broken)
	}
	r.checkStreams(ctx, b, broken)
	return broken.err()
}

// before lists what must be done before a step is issued; the rule is written here once
// more, so that the fold is not its own judge.
var before = map[phases.Step][]phases.Step{
	phases.P2: {phases.P1}, phases.Precommit: {phases.P2}, phases.P3: {phases.Precommit}, phases.P4: {phases.P3}, phases.P5: {phases.P3},
	phases.Commit: {phases.P4}, phases.P6: {phases.P4, phases.P5, phases.Commit},
}

// checkSector follows one sector's events.
func (r *run) checkSector(id string, log map[string][]phases.Event, effects map[string]int, broken faults) {
	s := phases.NewSector()
	done, started := map[phases.Step]int{}, map[phases.Step]bool{}
	finished := 0
	for _, e := range log[id] {
		if s.Apply(e) != nil {
			continue
		}
		r.report.Believed++
		switch e.Type {
		case phases.Issued:
			for _, b := range before[e.Step] {
				if done[b] == 0 {
					broken.add("out of order", "%s: %s was issued at %d before %s was done", id, e.Step, e.Seq, b)
				}
			}
			if done[e.Step] > 0 {
				broken.add("out of order", "%s: %s was issued again at %d after it was done", id, e.Step, e.Seq)
			}
			started[e.Step] = true
		case phases.Claimed:
			r.report.Claims++
		case phases.Failed:
			if e.Result != nil && (e.Result.Code == phases.CodeTicketExpired || e.Result.Code == phases.CodeCommitExpired) {
				broken.add("a wrong clock was believed", "%s: %s failed at %d with %s, dated %s", id, e.Step, e.Seq, e.Result.Code, e.At.Format(time.RFC3339))
			}
		case phases.Done:
			done[e.Step]++
			if e.Host == "forger" {
				broken.add("a forgery was believed", "%s: %s at %d", id, e.Step, e.Seq)
			}
			if e.Step.IsPhase() && effects[id+" "+string(e.Step)] == 0 {
				broken.add("an effect that no engine had", "%s: %s was done by %s at %d", id, e.Step, e.Host, e.Seq)
			}
		case phases.Finished:
			finished++
			if got := phases.Status(e.Result.Code); got != phases.StatusFinished {
				broken.add("a sector ended badly", "%s: %s", id, got)
			}
		}
	}
	if finished != 1 {
		broken.add("a sector did not end once", "%s: %d times", id, finished)
	}
	for _, step := range phases.Steps() {
		if done[step] != 1 {
			broken.add("a phase had not one effect", "%s: %s was done %d times", id, step, done[step])
		}
	}
}

// overlaps tells how often two engines worked on one phase of one sector at once: a holder
// that lost its claim learns that at its next heartbeat. It is no broken promise.
func (r *run) overlaps(lines []ledger.Line) {
	type span struct{ from, to time.Duration }
	runs := map[string][]span{}
	open := map[string]int{} // process → its span's index
	for _, l := range lines {
		key := l.Sector + " " + string(l.Phase)
		who := fmt.Sprintf("%s %s %d", key, l.Host, l.PID)
		if l.What == ledger.Start {
			open[who] = len(runs[key])
			runs[key] = append(runs[key], span{from: l.At, to: -1})
		} else if i, ok := open[who]; ok {
			runs[key][i].to = l.At
		}
	}
	for _, list := range runs {
		for i, a := range list {
			for _, b := range list[i+1:] {
				if a.to < 0 || b.to < 0 {
					continue // one was killed, and nobody knows when
				}
				if d := min(a.to, b.to) - max(a.from, b.from); d > 0 {
					r.report.Overlaps++
					r.report.Longest = max(r.report.Longest, d)
				}
			}
		}
	}
}

// checkStreams looks at what the streams hold when all is done: no task, and a tombstone
// for each sector. Both are tidied a moment after the last event.
func (r *run) checkStreams(ctx context.Context, b *bus.Bus, broken faults) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var tasks map[bus.TaskKey]bool
	var err error
	if waitFor(ctx, func() bool { tasks, _, err = b.Tasks(ctx); return err == nil && len(tasks) == 0 }) != nil {
		broken.add("tasks are left", "%v %v", tasks, err)
	}
	for n := range r.Sectors {
		id := phases.SectorID(miner, uint64(n+1))
		there := func() bool { stone, err := b.Archived(ctx, id); return err == nil && stone != nil }
		if waitFor(ctx, there) != nil {
			broken.add("a tombstone is missing", "%s", id)
		}
	}
}

// checkShares looks whether the hosts' shares become empty: what an attempt left that was
// lost to another host is tidied up later.
func (r *run) checkShares(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var left []string
	if waitFor(ctx, func() bool {
		left, _ = filepath.Glob(filepath.Join(r.sealer(), "nfs", "*", "*", "s-t*")) // the pattern is right
		return len(left) == 0
	}) == nil {
		return nil
	}
	broken := faults{}
	for _, path := range left {
		broken.add("files of a sector are left on a host", "%s", path)
	}
	return broken.err()
}

// checkLeft looks for what the fleet left behind when it was stopped.
func (r *run) checkLeft() error {
	broken := faults{}
	for _, pid := range processesOf("STATE_DIR="+r.dir+string(filepath.Separator), "") {
		broken.add("a process is left", "%d: %s", pid, commandLine(pid))
	}
	copies := map[string]int{}
	for i := range storageNodes {
		err := filepath.WalkDir(r.node(i), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && strings.Contains(d.Name(), ".part") {
				broken.add("half a copy is left on a storage node", "%s", path)
			}
			if err == nil && strings.HasPrefix(d.Name(), "s-t") && slices.Contains([]string{"cache"}, filepath.Base(filepath.Dir(path))) {
				copies[d.Name()]++
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for id, n := range copies {
		if n != 1 {
			broken.add("a sector was copied to two storage nodes", "%s: %d", id, n)
		}
	}
	return broken.err()
}
