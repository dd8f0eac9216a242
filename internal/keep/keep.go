// Package keep lets a phase outlive the consumer that started it.
//
// Each claimed phase has a directory of its own below the consumer's state directory: its
// journal. A keeper, a process of its own session, does the phase and leaves the outcome
// there. The consumer that started it, or the next one of the same host, hears of its
// progress through a FIFO, and of its end by that FIFO's end: whoever holds the other end
// lives. So a consumer may crash or be exchanged without a core-hour being lost, and an
// outcome that could not be reported waits on disk.
//
// What is promised: as long as a directory is there, its claim is this host's to answer
// for. A keeper works under no authority of its own; only the consumer, which reads the
// chain, knows whether the claim still holds. Therefore a keeper without a consumer stops
// after a limit, and a consumer that finds its claim lost kills what it finds.
//
// The files of a directory:
//
//	job.json      the task, the claim and the lease (by the consumer, before the start)
//	request.json  what the engine is asked for (likewise)
//	pid           the keeper, with its start time (by the keeper)
//	engine        the process group that the keeper's engine runs in, if it is another
//	progress      FIFO: lines of engine.Progress, to the consumer
//	control       FIFO: lines of control, from the consumer
//	stderr        what the keeper and its engine say
//	result.json   the outcome (by the keeper, synced)
//
// Limits: what a machine's crash does to files that were not synced is taken as "no job":
// its children are dead too. A keeper that is killed with its consumer away is a failed
// attempt; one that a reboot ended is not.
package keep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// Job is what a journal's entry knows.
type Job struct {
	V         int         `json:"v"`
	Claim     string      `json:"claim"`
	Reply     string      `json:"reply"` // the lease's, see bus.Lease
	Task      phases.Task `json:"task"`
	ClaimedAt time.Time   `json:"claimed_at"`
	Cores     []int       `json:"cores,omitempty"`
	Boot      string      `json:"boot"` // of the machine, when it was written
}

// order is what a keeper is asked for.
type order struct {
	Request     engine.Request `json:"request"`
	OrphanLimit time.Duration  `json:"orphan_limit_ns"`
}

// outcome is what a keeper leaves.
type outcome struct {
	Result  *engine.Result `json:"result,omitempty"`
	Error   *engine.Error  `json:"error,omitempty"`
	Stopped string         `json:"stopped,omitempty"` // it was told to stop, or nobody was left to work for
	Seconds float64        `json:"seconds"`           // the work itself
}

const (
	jobFile      = "job.json"
	requestFile  = "request.json"
	pidFile      = "pid"
	engineFile   = "engine"
	progressFifo = "progress"
	controlFifo  = "control"
	stderrFile   = "stderr"
	resultFile   = "result.json"

	jobsDir  = "jobs"
	lockFile = "lock"
)

// ErrInUse says that another consumer of this machine uses the state directory.
var ErrInUse = errors.New("another consumer uses this state directory")

// Store is a consumer's journal. Its lock tells keepers that their consumer lives.
type Store struct {
	dir  string
	lock *os.File
}

// Open makes the directory if need be, and locks it for this process.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, jobsDir), 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := lockAlone(lock); err != nil {
		err = errors.Join(fmt.Errorf("%w: %s; give each its own HOST_NAME or STATE_DIR, or stop the other", ErrInUse, dir), lock.Close())
		return nil, err
	}
	return &Store{dir: dir, lock: lock}, nil
}

// lockWithin is how long Open tries: keepers look at the lock once a second, and have it for a moment then.
const (
	lockWithin = time.Second
	lockEvery  = 20 * time.Millisecond
)

func lockAlone(lock *os.File) error {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(began) > lockWithin {
			return err
		}
	}
}

// Close lets another consumer open the journal. Keepers go on.
func (s *Store) Close() error { return s.lock.Close() }

// Jobs returns what consumers before this one left. What cannot be read is returned in
// the error, and stays as it is.
func (s *Store) Jobs() (jobs []*Kept, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, jobsDir))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var faults []error
	for _, entry := range entries {
		k := &Kept{store: s, dir: filepath.Join(s.dir, jobsDir, entry.Name())}
		data, err := os.ReadFile(filepath.Join(k.dir, jobFile))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
			// Its consumer, or the machine, died between making and filling it.
			faults = append(faults, os.RemoveAll(k.dir))
			continue
		}
		if err == nil {
			err = json.Unmarshal(data, &k.Job)
		}
		if err == nil && k.Claim != entry.Name() {
			err = fmt.Errorf("it is of claim %q", k.Claim)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("journal: %s cannot be read: %w; mend: see that nothing of it runs, then remove the directory", k.dir, err))
			continue
		}
		jobs = append(jobs, k)
	}
	return jobs, errors.Join(faults...)
}

// Begin writes a claimed job down, before anything of it is started.
func (s *Store) Begin(j Job) (*Kept, error) {
	if j.Claim == "" || strings.ContainsAny(j.Claim, "/.") {
		return nil, fmt.Errorf("journal: %q is no claim", j.Claim)
	}
	j.V, j.Boot = 1, bootID()
	k := &Kept{Job: j, store: s, dir: filepath.Join(s.dir, jobsDir, j.Claim)}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := k.Save(); err != nil {
		return nil, errors.Join(err, k.Forget())
	}
	return k, nil
}

// Kept is one job of the journal.
type Kept struct {
	Job

	store *Store
	dir   string
	child *child // of this process; nil: nobody, or started by a consumer before
}

// Save writes the job down anew, after its lease changed.
func (k *Kept) Save() error { return k.write(jobFile, k.Job) }

// Forget removes the job from the journal: its outcome is on the chain, or somebody
// else's counts. Nothing of it may run any more.
func (k *Kept) Forget() error {
	if err := os.RemoveAll(k.dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Started tells whether a keeper was ever asked.
func (k *Kept) Started() bool {
	_, err := os.Stat(k.path(requestFile))
	return err == nil
}

// Rebooted tells whether the machine was started again since.
func (k *Kept) Rebooted() bool { return k.Boot != bootID() }

// Request is what the keeper was asked for.
func (k *Kept) Request() (engine.Request, error) {
	var o order
	err := k.read(requestFile, &o)
	return o.Request, err
}

func (k *Kept) path(name string) string { return filepath.Join(k.dir, name) }

// write puts a file in its place whole. It is not synced: after a machine's crash nothing
// of the job runs, and an empty file counts as none.
func (k *Kept) write(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	temp := k.path("." + name)
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := os.Rename(temp, k.path(name)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (k *Kept) read(name string, v any) error {
	data, err := os.ReadFile(k.path(name))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("journal: %s: %w", k.path(name), err)
	}
	return nil
}

// bootID names the machine's run since its start.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
