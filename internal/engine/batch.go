package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/seal"
)

// Batch serves the p1 of several sectors of one host as one batch, over a socket. Each sector
// keeps a process of its own (Batched), which connects, speaks the protocol of this package over
// the connection, and is killed, cancelled and accounted by itself: what the batch shares is only
// the work. A connection that ends, ends the p1 of its sector and no other's; a batch that dies
// leaves recorded layers, from which each sector goes on alone.
type Batch struct {
	Most int           // sectors
	Wait time.Duration // for more sectors, from the first one on
}

const (
	helloWait  = 10 * time.Second // for a connection's request, and for the first connection
	memberWait = 10 * time.Second // for a member to read what it is told
	joinedStep = "in a batch"     // of a member's first progress: which one it is, of how many at most
)

// Serve listens at a socket, takes members until there are enough or the time is over, closes the
// socket, so that whoever comes next finds nobody and begins another batch, and does their p1. It
// returns when the last one has ended, and at once if another process listens there.
func (b Batch) Serve(ctx context.Context, socket string) error {
	members, err := b.open(socket)
	if err != nil || len(members) == 0 {
		return err
	}
	return b.run(ctx, members)
}

// run does the members' p1.
func (Batch) run(ctx context.Context, members []*member) error {
	items := make([]seal.BatchItem, len(members))
	for i, m := range members {
		items[i] = seal.BatchItem{
			Context: m.ctx, Sector: m.job.sector, Pieces: SealPieces(m.job.sector.Params, m.job.Pieces),
			Paths: m.job.paths, Options: m.job.opts, Done: m.done,
		}
	}
	seal.P1Batch(ctx, items, onCoresOf(members))
	for _, m := range members {
		<-m.left
	}
	return nil
}

// open gathers the members of a batch. One process at a time does so: it holds a lock.
func (b Batch) open(socket string) ([]*member, error) {
	lock, err := os.OpenFile(socket+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // gives the lock back
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed
		return nil, err
	}
	name, done, err := socketName(socket)
	if err != nil {
		return nil, err
	}
	defer done() //nolint:errcheck // only looked into
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	members, err := b.gather(l)
	return members, errors.Join(err, l.Close())
}

// socketName is another name for a socket, which is never too long for the kernel. It is good until
// done is called.
func socketName(path string) (name string, done func() error, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), dir.Close, nil
}

// gather accepts members.
func (b Batch) gather(l *net.UnixListener) ([]*member, error) {
	var members []*member
	over := time.Now().Add(helloWait)
	for len(members) < b.Most {
		if err := l.SetDeadline(over); err != nil {
			return nil, err
		}
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		m, err := newMember(conn, len(members)+1, b.Most)
		if err != nil {
			refuse(conn, err)
			continue
		}
		if members = append(members, m); len(members) == 1 {
			over = time.Now().Add(b.Wait)
		}
	}
	return members, nil
}

// refuse tells one who can't be a member why.
func refuse(conn *net.UnixConn, err error) {
	_ = conn.SetWriteDeadline(time.Now().Add(memberWait))
	w := &lineWriter{enc: json.NewEncoder(conn)}
	_ = w.last(line{Type: "error", Error: asError(err)})
	_ = conn.Close()
}

// member is one sector of a batch, and the connection to its own process.
type member struct {
	conn  *net.UnixConn
	cores []int // of its process
	job   *job
	ctx   context.Context
	leave context.CancelFunc
	notes chan Progress // of one place: the newest
	last  chan line
	left  chan struct{} // closed when it was told how its p1 ended
}

// newMember reads who it is and what it wants.
func newMember(conn *net.UnixConn, number, most int) (*member, error) {
	pid, err := peer(conn)
	if err != nil {
		return nil, err
	}
	m := &member{conn: conn, notes: make(chan Progress, 1), last: make(chan line, 1), left: make(chan struct{})}
	if m.cores, err = coresOf(pid); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	var r Request
	if err := readLine(in, &r); err != nil {
		return nil, failf("bad_request", phases.Permanent, "no request: %v", err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Phase != phases.P1 {
		return nil, failf("bad_request", phases.Permanent, "a batch does p1, not %s", r.Phase)
	}
	if m.job, err = newJob(r, m.note); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	m.ctx, m.leave = context.WithCancel(context.Background())
	go m.watch(in)
	m.note(Progress{joinedStep, uint64(number), uint64(most)})
	go m.talk()
	return m, nil
}

// watch ends the sector's p1 when its process has nothing to say any more.
func (m *member) watch(in *bufio.Reader) {
	for {
		if _, err := boundedLine(in); err != nil { // there are no controls for p1
			m.leave()
			return
		}
	}
}

// note never blocks: a process that does not read must not hold up the others.
func (m *member) note(p Progress) { Offer(m.notes, p) }

// talk writes to the sector's process. One that does not read is gone.
func (m *member) talk() {
	defer close(m.left)
	defer m.conn.Close() //nolint:errcheck // nothing follows
	w := &lineWriter{enc: json.NewEncoder(m.conn)}
	for {
		select {
		case p := <-m.notes:
			if err := m.conn.SetWriteDeadline(time.Now().Add(memberWait)); err != nil {
				m.leave()
			}
			if err := w.progress(p); err != nil {
				m.leave()
				<-m.last
				return
			}
		case l := <-m.last:
			_ = m.conn.SetWriteDeadline(time.Now().Add(memberWait))
			_ = w.last(l) // whoever is gone does p1 again, and finds it done or resumes
			return
		}
	}
}

// done is told how the sector's p1 ended.
func (m *member) done(r seal.BatchResult) {
	var result Result
	err := r.Err
	if err == nil {
		result, err = m.job.p1Result(r.Output)
	}
	switch {
	case err == nil:
		m.last <- line{Type: "result", Result: &result}
	case m.ctx.Err() != nil:
		m.last <- line{Type: "error", Error: failf("killed", phases.Transient, "stopped with its process")}
	default:
		m.last <- line{Type: "error", Error: explain(err)}
	}
}

// peer returns the process at the other end, which must be of the same user.
func peer(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		who, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return 0, errors.Join(err, credErr)
	}
	if int(who.Uid) != os.Getuid() {
		return 0, failf("bad_request", phases.Permanent, "a batch serves its own user (%d), not user %d", os.Getuid(), who.Uid)
	}
	return int(who.Pid), nil
}

func coresOf(pid int) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return nil, fmt.Errorf("cores of process %d: %w", pid, err)
	}
	var cores []int
	for core := 0; len(cores) < set.Count(); core++ {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores, nil
}

// onCoresOf keeps this process to all cores that the members' processes may run on, and to as many
// threads as they may have together, and returns their number.
func onCoresOf(members []*member) int {
	var set unix.CPUSet
	asked, any := 0, false
	for _, m := range members {
		for _, core := range m.cores {
			set.Set(core)
		}
		asked += m.job.Threads
		any = any || m.job.Threads == 0
	}
	threads := set.Count()
	if !any {
		threads = min(threads, asked)
	}
	// Every thread has an affinity of its own, and hands it on to those that it starts. Failure
	// costs no more than the cores that are not used.
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		if id, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.SchedSetaffinity(id, &set)
		}
	}
	runtime.GOMAXPROCS(threads)
	return threads
}
