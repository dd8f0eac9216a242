package consume

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/storage"
	"sealfleet/internal/storage/storagetest"
)

func objectNode(endpoint string) Node {
	return Node{Name: "far", Dir: "s3://sectors/f01000", S3: storage.S3Options{Endpoint: endpoint, Region: storagetest.Region}}
}

// objectStore is a real S3 server in this process, with an empty bucket. spoil changes
// a bit of an object.
func objectStore(t *testing.T) (node Node, spoil func(name string, bit int), remove func(name string), requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	endpoint, client := storagetest.S3(t, func() { requests.Add(1) })
	node = objectNode(endpoint)
	spoil = func(name string, bit int) {
		t.Helper()
		body, _, _, err := client.GetObject(t.Context(), "sectors", "f01000/"+name, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		data[bit/8] ^= 1 << (bit % 8)
		if _, err := client.PutObject(t.Context(), "sectors", "f01000/"+name, bytes.NewReader(data), int64(len(data)), "", "", minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	remove = func(name string) {
		t.Helper()
		if err := client.RemoveObject(t.Context(), "sectors", "f01000/"+name, minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return node, spoil, remove, requests
}

func TestAuditOfAnObjectStore(t *testing.T) {
	node, spoil, remove, requests := objectStore(t)
	const good, bad = "s-t01000-1", "s-t01000-2"
	events := chains{}
	for _, sector := range []string{good, bad} {
		events.done(sector, phases.P2, map[string]string{"comm_r": storedSectorOn(t, node, sector)})
		events.done(sector, phases.P5, nil)
	}
	spoil("sealed/"+bad, 8*1000+2)
	a := Auditor{Bus: events, Groups: []string{group}}
	list, err := a.Sectors(t.Context(), node)
	if err != nil || !slices.Equal(list, []string{good, bad}) {
		t.Fatalf("sectors %v: %v", list, err)
	}
	check := func(sector, want string) {
		t.Helper()
		if got, err := a.Audit(t.Context(), node, sector, 200); err != nil || got.Result != want {
			t.Errorf("%s: %+v, %v; want %s", sector, got, err, want)
		}
	}
	check(good, AuditOK)
	check(bad, AuditBad)
	spoil("cache/"+good+"/p_aux", 3)
	check(good, AuditBad)
	spoil("cache/"+good+"/p_aux", 3)
	check(good, AuditOK)
	remove("cache/" + good + "/" + merkle.FileName(merkle.TreeRID))
	check(good, AuditBad) // p5 is done, so it must be there

	// A store that is away says nothing of a sector.
	away := node
	away.S3.Endpoint = "http://127.0.0.1:1"
	if got, err := a.Audit(t.Context(), away, good, 1); err != nil || got.Result != AuditUnreadable || strings.Contains(got.Message, "of-the-test") {
		t.Errorf("a store that is away: %+v, %v", got, err)
	}
	if _, err := a.Sectors(t.Context(), away); err == nil {
		t.Error("a store that is away has sectors")
	}
	before := requests.Load()
	if got, err := a.Audit(t.Context(), node, bad, 0); err != nil || got.Result != AuditOK || requests.Load()-before > 8 {
		t.Errorf("without a challenge: %+v, %v, %d requests", got, err, requests.Load()-before)
	}
}

func TestScheduledAuditTakesObjectStores(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	node, spoil, _, _ := objectStore(t)
	commR := storedSectorOn(t, node, "s-t01000-9")
	for _, step := range []phases.Step{phases.P2, phases.P5} {
		finish(f, step, 9, map[string]string{"comm_r": commR}, func() {})
	}
	c := f.consumer("host1", "1:p6", &ledger{}, func(c *Consumer) {
		c.cfg.Engine, c.cfg.Nodes = EngineBuiltin, Nodes{node}
		c.cfg.Audit = AuditConfig{Samples: 200, Interval: 100 * time.Millisecond, Sectors: 5}
	})
	f.eventually("a good sector is counted", func() bool { return testutil.ToFloat64(c.metrics.audits.WithLabelValues(AuditOK)) > 0 })
	spoil("sealed/s-t01000-9", 77)
	f.eventually("the flipped bit is counted", func() bool { return testutil.ToFloat64(c.metrics.audits.WithLabelValues(AuditBad)) > 0 })
}

// A bucket that is wrong from the start must be known before p1, as a directory's fault is.
func TestDoctorTriesObjectStores(t *testing.T) {
	var requests atomic.Int64
	endpoint, client := storagetest.S3(t, func() { requests.Add(1) })
	node := objectNode(endpoint)
	look := func(n Node, limit time.Duration) host.Report {
		t.Helper()
		cfg := Config{HostName: "h1", Engine: EngineBuiltin, Workers: Workers{{Num: 1, Phases: []phases.Step{phases.P5}}}, Nodes: Nodes{n}, LocalDir: t.TempDir()}
		cfg.Doctor = host.Settings{Limit: limit}
		d := NewDoctor(&cfg, host.NewCores(0), &host.Prober{Path: "/bin/true"})
		d.Places = nil // another test's
		return d.Run(t.Context(), 0, true)
	}
	find := func(r host.Report) host.Finding {
		t.Helper()
		for _, f := range r.Findings {
			if f.Subject == "STORAGE_NODES far" {
				return f
			}
		}
		t.Fatalf("nobody looked at the store: %+v", r.Findings)
		return host.Finding{}
	}
	if f := find(look(node, patience)); f.Severity != host.OK || f.Code != "writable" {
		t.Errorf("a store that is well: %+v", f)
	}
	if requests.Load() < 4 {
		t.Errorf("%d requests: it was not written, read back and removed", requests.Load())
	}
	// Nothing is left, and none is in another's way: the rounds, an operator, before a p1.
	var looking sync.WaitGroup
	for range 8 {
		looking.Go(func() {
			if f := find(look(node, patience)); f.Severity != host.OK {
				t.Errorf("eight looks at once: %+v", f)
			}
		})
	}
	looking.Wait()
	for o := range client.ListObjectsIter(t.Context(), "sectors", minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil || strings.Contains(o.Key, "check") {
			t.Errorf("left in the store: %s %v", o.Key, o.Err)
		}
	}
	other := node
	other.Dir = "s3://absent/x"
	if f := find(look(other, patience)); f.Severity != host.Refuse || f.Code != "not_writable" || !strings.Contains(f.Evidence, "bucket") || f.Mend == "" {
		t.Errorf("no such bucket: %+v", f)
	}
	other = node
	other.ReadOnly = true
	for _, f := range look(other, patience).Findings {
		if f.Subject == "STORAGE_NODES far" {
			t.Errorf("a read-only node was tried: %+v", f)
		}
	}
	// One that takes a connection and never answers.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	other = node
	other.S3.Endpoint = "http://" + silent.Addr().String()
	if f := find(look(other, 300*time.Millisecond)); f.Severity != host.Refuse || f.Code != "path_hung" || strings.Contains(f.Evidence, "of-the-test") {
		t.Errorf("a store that does not answer: %+v", f)
	}
}

// A bucket with a quota is full when what lies in it, and what is being copied to it, says so.
func TestQuotaOfABucket(t *testing.T) {
	endpoint, client := storagetest.S3(t, nil)
	put := func(key string, size int) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), storagetest.Bucket, key, bytes.NewReader(make([]byte, size)), int64(size), "", "", minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("f01000/sealed/s-t01000-1", 2048)
	put("f01000/cache/s-t01000-1/p_aux", 64)
	put("f01000-other/sealed/s-t01000-1", 1<<20) // another prefix
	node := objectNode(endpoint)
	node.Weight, node.Quota, node.Keep = 1, 3*2048, 100
	c := &Consumer{
		cfg: Config{Engine: EngineBuiltin, LocalDir: t.TempDir(), Nodes: Nodes{node}}, log: slog.New(slog.DiscardHandler),
		places: host.NewPatience(patience), shares: newShares(0),
	}
	task := func(number uint64) phases.Task {
		return phases.Task{
			Sector: phases.SectorID(1000, number), Group: group, Step: phases.P5, Issue: 1, Attempt: 1,
			Spec: phases.Spec{Miner: 1000, Number: number, ProofType: 5}, Inputs: map[string]string{"ip": "10.0.0.1"},
		}
	}
	refused := func(number uint64, why string) {
		t.Helper()
		_, _, err := c.request(t.Context(), task(number), "10.0.0.1")
		var e *engine.Error
		if !errors.As(err, &e) || e.Code != "no_space" || e.Class != phases.Transient || !strings.Contains(e.Message, why) {
			t.Errorf("sector %d: %v, want no_space with %q", number, err, why)
		}
	}
	_, leave, err := c.request(t.Context(), task(2), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	refused(3, "1.8 KiB") // 6144 - 2112 - 2048 - 100
	_, again, err := c.request(t.Context(), task(2), "10.0.0.1")
	if err != nil {
		t.Errorf("the next attempt of the sector that is counted: %v", err)
	}
	if free, known := c.quotas.known(node, ""); free != 6144-2112-2048 || !known {
		t.Errorf("%d bytes are free, %v", free, known)
	}
	leave()
	again()
	refused(3, "1.8 KiB") // it ended: perhaps it lies there now
	c.quotas.at(node.Name).listed = time.Time{}
	if _, _, err := c.request(t.Context(), task(3), "10.0.0.1"); err != nil {
		t.Errorf("the next listing does not know it, and it has ended: %v", err)
	}

	// A store that cannot be listed has no known room.
	c.cfg.Nodes[0].S3.Endpoint, c.cfg.Nodes[0].Name = "http://127.0.0.1:1", "away"
	_, _, err = c.request(t.Context(), task(4), "10.0.0.1")
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("a store that is away: %v", err)
	}
}
