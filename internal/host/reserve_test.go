package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const reserverEnv = "SEALFLEET_TEST_RESERVER"

// smallDisk is a ledger over a disk of some bytes, of which nothing is used.
func smallDisk(share string, free uint64) *Ledger {
	l := NewLedger(share, "h1")
	l.free = func(string) (uint64, error) { return free, nil }
	return l
}

// runReserver is one of several processes that reserve and release as fast as they can. Of
// a disk for three it takes one part at a time, and tells how many it saw at once.
func runReserver() int {
	share := os.Getenv(reserverEnv)
	l := smallDisk(share, 300)
	held := filepath.Join(share, "held")
	got := 0
	for i := 0; got < 15 && i < 3000; i++ {
		r, err := l.Reserve("p1 of a sector", 100, nil, false)
		if errors.Is(err, ErrNoRoom) {
			continue
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		got++
		// While it is held this process has a file there. More than three at once: too much was promised.
		mine := filepath.Join(held, fmt.Sprintf("%d-%d", os.Getpid(), i))
		if err := os.WriteFile(mine, nil, 0o600); err != nil {
			fmt.Println(err)
			return 1
		}
		if all, err := os.ReadDir(held); err != nil || len(all) > 3 {
			fmt.Println("held at once:", len(all), err)
			return 1
		}
		if err := os.Remove(mine); err != nil {
			fmt.Println(err)
			return 1
		}
		r.Release()
	}
	fmt.Println(got)
	return 0
}

func TestManyProcessesNeverPromiseTooMuch(t *testing.T) {
	share := t.TempDir()
	if err := os.Mkdir(filepath.Join(share, "held"), 0o755); err != nil {
		t.Fatal(err)
	}
	outs := make([]string, 6)
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = []string{reserverEnv + "=" + share}
			out, err := cmd.CombinedOutput()
			outs[i] = string(out)
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	t.Logf("reservations of each: %q", outs)
	for _, o := range outs {
		if strings.TrimSpace(o) == "0" {
			t.Error("one never got any room")
		}
	}
	if left, err := os.ReadDir(ReserveDir(share)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRoomIsPromisedOnce(t *testing.T) {
	share := t.TempDir()
	l := smallDisk(share, 1000)
	l.pause = func(time.Duration) {}
	first, err := l.Reserve("p1 of s-t01000-7", 700, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	other := smallDisk(share, 1000) // another consumer
	other.pause = l.pause
	_, err = other.Reserve("p1 of s-t01000-8", 400, nil, false)
	var none *NoRoomError
	if !errors.As(err, &none) || !errors.Is(err, ErrNoRoom) || none.Promised != 700 || none.Others != 1 {
		t.Fatal(err)
	}
	for _, want := range []string{"p1 of s-t01000-8 waits for disk", "400 B", "1000 B free", "700 B", "p1 of s-t01000-7 on h1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if second, err := other.Reserve("p2", 300, nil, false); err != nil {
		t.Error(err)
	} else {
		second.Release()
	}
	first.Release()
	first.Release()
	if _, err := other.Reserve("p1 of s-t01000-8", 1000, nil, false); err != nil {
		t.Error(err)
	}
}

// plant writes another's reservation, last touched a while ago.
func plant(t *testing.T, share string, c Claimed, ago time.Duration) string {
	t.Helper()
	path := filepath.Join(ReserveDir(share), c.ID+".json")
	if err := errorsOf(os.MkdirAll(ReserveDir(share), 0o755), writeJSON(path, c)); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-ago)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVoidReservationsAreRemoved(t *testing.T) {
	share := t.TempDir()
	l := smallDisk(share, 100)
	l.pause = func(time.Duration) {}
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.CommandContext(t.Context(), "/bin/sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	for name, c := range map[string]struct {
		claim Claimed
		ago   time.Duration
		void  bool
	}{
		"owner died here":            {Claimed{Boot: bootID(), PID: dead.Process.Pid, Start: "1"}, 0, true},
		"its number is another's":    {Claimed{Boot: bootID(), PID: sleeper.Process.Pid, Start: "1"}, 0, true},
		"owner lives here":           {Claimed{Boot: bootID(), PID: sleeper.Process.Pid, Start: processStart(sleeper.Process.Pid)}, 0, false},
		"other host, touched lately": {Claimed{Boot: "other", PID: 1, Start: "1"}, reserveExpires / 2, false},
		"other host, long ago":       {Claimed{Boot: "other", PID: 1, Start: "1"}, 2 * reserveExpires, true},
	} {
		c.claim.ID, c.claim.Bytes = "planted", 60
		path := plant(t, share, c.claim, c.ago)
		r, err := l.Reserve("p1", 60, nil, false)
		_, statErr := os.Stat(path)
		if c.void != (err == nil) || c.void != errors.Is(statErr, os.ErrNotExist) {
			t.Errorf("%s: %v, file: %v", name, err, statErr)
		}
		if r != nil {
			r.Release()
		}
		_ = os.Remove(path)
	}
	if first, second := processStart(os.Getpid()), processStart(os.Getpid()); first == "" || first != second {
		t.Error("cannot tell when this process began")
	}
}

func TestDamagedReservationIsNamed(t *testing.T) {
	share := t.TempDir()
	path := plant(t, share, Claimed{ID: "x"}, 0)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := smallDisk(share, 100).Reserve("p1", 1, nil, false); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "mend") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(ReserveDir(share)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	// A power cut's: nobody touched it for long.
	old := time.Now().Add(-2 * reserveExpires)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := smallDisk(share, 100).Reserve("p1", 1, nil, false); err != nil {
		t.Error(err)
	}
}

// What a phase has written already is missing from the free space: it must not be counted
// twice.
func TestReservationShrinksAsItIsWritten(t *testing.T) {
	share := t.TempDir()
	const need = 4 * walkAbove
	written := filepath.Join(share, "cache", "s-t01000-7")
	if err := os.MkdirAll(written, 0o755); err != nil {
		t.Fatal(err)
	}
	free := uint64(2 * need)
	l := NewLedger(share, "h1")
	l.pause = func(time.Duration) {}
	l.free = func(string) (uint64, error) { return free, nil }
	if _, err := l.Reserve("p1 of s-t01000-7", need, []string{"cache/s-t01000-7"}, true); err != nil {
		t.Fatal(err)
	}
	const part = 16 << 20
	if err := os.WriteFile(filepath.Join(written, "layer"), make([]byte, part), 0o600); err != nil {
		t.Fatal(err)
	}
	free -= part
	r, err := l.Reserve("p1 of s-t01000-8", need, []string{"cache/s-t01000-8"}, true)
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	free -= 2 * mib // somebody else's
	if _, err := l.Reserve("p1 of s-t01000-8", need, []string{"cache/s-t01000-8"}, true); !errors.Is(err, ErrNoRoom) {
		t.Errorf("got %v", err)
	}
	// Paths of a reservation that lead out of the share are not followed.
	if n := used(share, []string{"../" + filepath.Base(share) + "/cache", "/"}); n != 0 {
		t.Errorf("counted %d bytes elsewhere", n)
	}
}

// An earlier attempt's leftovers make place for this one's, so they do not keep it out.
func TestAttemptThatGoesOnNeedsLess(t *testing.T) {
	share := t.TempDir()
	const need = 2 * walkAbove
	dir := filepath.Join(share, "cache", "s-t01000-7")
	if err := errorsOf(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "layer"), make([]byte, need/2), 0o600)); err != nil {
		t.Fatal(err)
	}
	l := smallDisk(share, need/2+mib)
	if _, err := l.Reserve("p2", need, []string{"cache/s-t01000-7"}, false); !errors.Is(err, ErrNoRoom) {
		t.Errorf("other phases' files count as its own: %v", err)
	}
	if _, err := l.Reserve("p1", need, []string{"cache/s-t01000-7"}, true); err != nil {
		t.Error(err)
	}
}

// Two addresses of one machine are two shares on one disk.
func TestSharesOnOneMountCountTogether(t *testing.T) {
	top := t.TempDir()
	a, b := filepath.Join(top, "10.0.0.1"), filepath.Join(top, "10.0.0.2")
	if err := errorsOf(os.Mkdir(a, 0o755), os.Mkdir(b, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := smallDisk(a, 100).Reserve("p1", 60, nil, false); err != nil {
		t.Fatal(err)
	}
	if _, err := smallDisk(b, 100).Reserve("p1", 60, nil, false); !errors.Is(err, ErrNoRoom) {
		t.Errorf("got %v", err)
	}
}

func TestReservationIsReadable(t *testing.T) {
	share := t.TempDir()
	r, err := smallDisk(share, 100).Reserve("p1 of s-t01000-7", 60, []string{"cache/s-t01000-7"}, true)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	var c Claimed
	if err := json.Unmarshal(data, &c); err != nil || c.What != "p1 of s-t01000-7" || c.Host != "h1" || c.PID != os.Getpid() || c.Boot == "" || c.Start == "" {
		t.Errorf("%s %v", data, err)
	}
	old := time.Now().Add(-time.Hour)
	if err := errorsOf(os.Chtimes(r.path, old, old), r.Touch()); err != nil {
		t.Fatal(err)
	}
	if at, err := modified(r.path); err != nil || time.Since(at) > time.Minute {
		t.Error(at, err)
	}
}

func TestDeskDoesNotHangWithAShare(t *testing.T) {
	t.Parallel()                       // it waits, most of its time
	d := NewDesk("h1", 10*time.Second) // a healthy share on a busy machine must not seem hung
	dir := hungMount(t, func(dir string) {
		if err := d.at(dir).turn.do(patience, func() error { return nil }); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // the second finds the first still waiting
		if _, err := d.Reserve(dir, "p1", 1, nil, true, time.Minute); !errors.Is(err, ErrHung) {
			t.Errorf("got %v", err)
		}
	}
	// Another share is not held up.
	leave, err := d.Reserve(t.TempDir(), "p1", 1, nil, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

func TestCoresAreReservedAndGrouped(t *testing.T) {
	sys := t.TempDir()
	// Eight threads of four cores: 0 and 4 are one core, …; two share each L3.
	for i := range 8 {
		cpu := filepath.Join(sys, fmt.Sprintf("devices/system/cpu/cpu%d", i))
		group := "0-1,4-5"
		if i%4 >= 2 {
			group = "2-3,6-7"
		}
		for name, text := range map[string]string{
			"topology/thread_siblings_list": fmt.Sprintf("%d,%d", i%4, i%4+4),
			"cache/index0/level":            "1", "cache/index3/level": "3", "cache/index3/shared_cpu_list": group,
		} {
			path := filepath.Join(cpu, name)
			if err := errorsOf(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := []int{0, 1, 2, 3, 4, 5, 6, 7}
	c := newCores(sys, all, 2)
	if !slices.Equal(c.Allowed(), []int{1, 2, 3, 5, 6, 7}) || !strings.Contains(c.Note(), "0,4 reserved") {
		t.Errorf("%v %s", c.Allowed(), c.Note())
	}
	if got, _ := c.Group(false); !slices.Equal(got, c.Allowed()) {
		t.Errorf("p2 gets %v", got)
	}
	// Two and four threads: the third p1 goes where there is most left.
	first, free := c.Group(true)
	second, _ := c.Group(true)
	third, _ := c.Group(true)
	if !slices.Equal(first, []int{1, 5}) || !slices.Equal(second, []int{2, 3, 6, 7}) || !slices.Equal(third, []int{2, 3, 6, 7}) {
		t.Errorf("%v %v %v", first, second, third)
	}
	free()
	free()
	if again, _ := c.Group(true); !slices.Equal(again, first) {
		t.Errorf("%v", again)
	}
	for n, note := range map[int]string{1: "only 1", 2: "only 2"} {
		if c := newCores(sys, all[:n], 2); len(c.Allowed()) != n || !strings.Contains(c.Note(), note) {
			t.Errorf("%v %s", c.Allowed(), c.Note())
		}
	}
	if c := newCores(sys, all, 0); len(c.Allowed()) != 8 {
		t.Errorf("%v", c.Allowed())
	}
}

func TestChildrenRunOnTheirCores(t *testing.T) {
	cores := NewCores(0).Allowed()
	if len(cores) < 2 {
		t.Skip("needs two cores to tell one from all")
	}
	allowed := func(cores []int) string {
		cmd := exec.Command("/bin/grep", "Cpus_allowed_list", "/proc/self/status")
		var out strings.Builder
		cmd.Stdout = &out
		if pinErr, err := StartOn(cores, cmd.Start); pinErr != nil || err != nil {
			t.Fatal(pinErr, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		_, list, _ := strings.Cut(strings.TrimSpace(out.String()), "\t")
		return list
	}
	if got := allowed(cores[1:2]); got != formatCPUs(cores[1:2]) {
		t.Errorf("the child may run on %s", got)
	}
	if got := allowed(nil); got != formatCPUs(cores) {
		t.Errorf("afterwards others may run on %s, want %s", got, formatCPUs(cores))
	}
}
