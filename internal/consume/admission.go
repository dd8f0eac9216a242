package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/storage"
)

// admission decides whether a task may begin on this host now. How big a sector is shows
// only in its task, so the decision falls after the task was given out and before it is
// claimed: no attempt is spent. A task that must wait goes back to the queue for a while,
// for another host or for later, and its queue is not asked meanwhile.
type admission struct {
	checkup *Checkup
	desk    *host.Desk
	cores   *host.Cores
	log     *slog.Logger
	cfg     *Config
	delays  *prometheus.CounterVec
	rest    time.Duration // how long a queue rests
	touch   time.Duration

	mu     sync.Mutex
	heavy  int    // running phases that keep a core busy
	memory uint64 // that running phases may take
	waits  map[queueName]waiting
}

// queueName names a queue: a phase of a group.
type queueName struct {
	group string
	step  phases.Step
}

// waiting is why a queue rests.
type waiting struct {
	reason string // disk, memory, cores, doctor
	err    error
	until  time.Time
	seen   time.Time // when a task last had to wait
}

// holds tells whether there is still a task that waits, as far as this host knows: another
// host may have taken it.
func (w waiting) holds(rest time.Duration) bool { return time.Since(w.seen) < 3*rest }

var waitingDesc = prometheus.NewDesc("sealfleet_admission_waiting",
	"1 for a phase of a group whose tasks wait on this host, by what they wait for: disk, memory, cores or doctor.", []string{"group", "phase", "reason"}, nil)

// Describe and Collect make admission a collector of what waits now.
func (a *admission) Describe(ch chan<- *prometheus.Desc) { ch <- waitingDesc }

// Collect see Describe.
func (a *admission) Collect(ch chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for q, w := range a.waits {
		if w.holds(a.rest) {
			ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, 1, q.group, string(q.step), w.reason)
		}
	}
}

// heavySector is the size from which a phase keeps a core busy for longer than a moment.
const heavySector = 512 << 20

const (
	admissionRest  = 15 * time.Second
	admissionTouch = time.Minute
)

// Admit has this consumer admit tasks by disk, memory, cores and the doctor. It must be
// called before Run. Without it every free slot takes what comes.
func (c *Consumer) Admit(k *Checkup, cores *host.Cores, registry prometheus.Registerer) {
	a := &admission{
		checkup: k, desk: host.NewDesk(c.cfg.HostName, c.cfg.Doctor.Limit), cores: cores, log: c.log, cfg: &c.cfg,
		delays: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_admission_delays_total", Help: "Tasks that were given back before an attempt began, by what was missing: disk, memory, cores or doctor.",
		}, []string{"phase", "reason"}),
		rest: admissionRest, touch: admissionTouch, waits: map[queueName]waiting{},
	}
	registry.MustRegister(a, a.delays)
	c.admission = a
}

// admitted is what a task was given: it must be left when the task has ended.
type admitted struct {
	cores []int
	leave func()
}

// errWaits is what a task waits for.
type errWaits struct {
	reason string
	err    error
}

func (e *errWaits) Error() string { return e.err.Error() }
func (e *errWaits) Unwrap() error { return e.err }

// enter admits a task or says what it waits for (*errWaits). p1 works in the share of ip.
// a may be nil.
func (a *admission) enter(ctx context.Context, t phases.Task, ip string) (*admitted, error) {
	if a == nil {
		return &admitted{leave: func() {}}, nil
	}
	params, err := sealcore.ForProofType(t.Spec.ProofType)
	if err != nil {
		return &admitted{leave: func() {}}, nil // the engine says what is wrong with it
	}
	size := params.SectorSize
	need, known := host.NeedOf(size, t.Step)
	if !known {
		return &admitted{leave: func() {}}, nil
	}
	if t.Step == phases.P1 && a.checkup != nil {
		if err := a.checkup.beforeP1(ctx, size); err != nil {
			return nil, &errWaits{"doctor", err}
		}
	}
	leaveMachine, err := a.enterMachine(t, size, need)
	if err != nil {
		return nil, err
	}
	leaveDisk, err := a.enterDisk(t, ip, need)
	if err != nil {
		leaveMachine()
		return nil, &errWaits{"disk", err}
	}
	cores, freeCores := a.cores.Group(t.Step == phases.P1)
	return &admitted{cores: cores, leave: sync.OnceFunc(func() { freeCores(); leaveDisk(); leaveMachine() })}, nil
}

// enterMachine takes a core and memory of this process's count.
func (a *admission) enterMachine(t phases.Task, size uint64, need host.Need) (leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	heavy := 0
	if size >= heavySector && need.Cores > 0 && t.Step != phases.P5 && t.Step != phases.P6 {
		heavy = 1
	}
	if n := len(a.cores.Allowed()); heavy > 0 && a.heavy >= n {
		return nil, &errWaits{"cores", fmt.Errorf("%s of %s waits for a core: %d phases run on %d cores (%s)", t.Step, t.Sector, a.heavy, n, a.cores.Note())}
	}
	if err := host.MemoryFor(need.Memory, a.memory); err != nil {
		return nil, &errWaits{"memory", fmt.Errorf("%s of %s waits for memory: %w", t.Step, t.Sector, err)}
	}
	a.heavy += heavy
	a.memory += need.Memory
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.heavy -= heavy
		a.memory -= need.Memory
		for q, w := range a.waits {
			w.until = time.Now() // there may be room now
			a.waits[q] = w
		}
	}, nil
}

// enterDisk reserves what the phase writes on its share.
func (a *admission) enterDisk(t phases.Task, p1 string, need host.Need) (leave func(), err error) {
	ip := t.Inputs["ip"]
	if t.Step == phases.P1 {
		ip = p1
	}
	if need.Scratch == 0 || ip == "" || ip != filepath.Base(ip) || ip == ".." {
		return func() {}, nil
	}
	paths := []string{filepath.Join("cache", t.Sector)}
	if t.Step == phases.P1 {
		paths = append(paths, filepath.Join("unsealed", t.Sector), filepath.Join("sealed", t.Sector))
	}
	return a.desk.Reserve(a.cfg.share(ip), fmt.Sprintf("%s of %s", t.Step, t.Sector), need.Scratch, paths, t.Step == phases.P1, a.touch)
}

// delay gives a task back that must wait, and has its queue rest.
func (a *admission) delay(j *job, err error) {
	var w *errWaits
	if !errors.As(err, &w) {
		j.log.Warn("cannot tell whether a task may begin", "error", err)
		j.nak(time.Second)
		return
	}
	rest := a.rest + rand.N(a.rest/2) // hosts that wait for the same disk take turns
	q := queueName{j.task.Group, j.task.Step}
	a.delays.WithLabelValues(string(j.task.Step), w.reason).Inc()
	a.mu.Lock()
	before, again := a.waits[q]
	a.waits[q] = waiting{w.reason, w.err, time.Now().Add(rest), time.Now()}
	a.mu.Unlock()
	level := slog.LevelWarn
	if again && before.reason == w.reason {
		level = slog.LevelDebug // said already
	}
	j.log.Log(context.Background(), level, "the task waits, no attempt is spent", "for", w.reason, "why", w.err, "rest", rest.Round(time.Second))
	j.nak(rest)
}

// begun notes that a phase of a queue could begin.
func (a *admission) begun(t phases.Task) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q := queueName{t.Group, t.Step}
	if w, was := a.waits[q]; was {
		delete(a.waits, q)
		a.log.Info("tasks no longer wait", logs.Group, t.Group, logs.Phase, t.Step, "for", w.reason)
	}
}

// rests tells until when a queue is not asked; zero if it may be. a may be nil.
func (a *admission) rests(group string, step phases.Step) time.Time {
	if a == nil {
		return time.Time{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waits[queueName{group, step}].until
}

// reasons returns what queues wait for, nil if none does.
func (a *admission) reasons() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var texts []string
	for q, w := range a.waits {
		if w.holds(a.rest) {
			texts = append(texts, q.group+": "+w.err.Error())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	slices.Sort(texts)
	return errors.New(strings.Join(texts, "; "))
}

// Waiting returns nil, or what this host's tasks wait for: a reason in /readyz.
func (c *Consumer) Waiting() error { return c.admission.reasons() }

// recordOrigin notes in a sector's cache which file system p1 writes to.
func recordOrigin(share, cache, hostName string) error {
	if err := host.RecordOrigin(share, cache, hostName); err != nil {
		return storage.Classify(fmt.Errorf("cannot note which file system p1 writes to: %w", err))
	}
	return nil
}
