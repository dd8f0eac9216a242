//go:build browser

package page_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/web/page"
)

type m = map[string]any

// A small farm for developing the page by hand: SEALFLEET_PAGE_DEV=127.0.0.1:9999.
func TestDev(t *testing.T) {
	addr := os.Getenv("SEALFLEET_PAGE_DEV")
	if addr == "" {
		t.Skip("SEALFLEET_PAGE_DEV is not set")
	}
	n, _ := strconv.Atoi(os.Getenv("SEALFLEET_PAGE_SECTORS"))
	if n == 0 {
		n = 10000
	}
	t0 := time.Now()
	steps := []string{"p1", "p2", "precommit", "p3", "p4", "p5", "commit", "p6"}
	states := []string{"running", "running", "waiting", "delayed"}
	ts := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) }
	row := func(i int) m {
		st := steps[i%8]
		state := states[i%4]
		if st == "precommit" || st == "commit" {
			state = "on chain"
		}
		r := m{"sector": fmt.Sprintf("s-t01000-%d", i), "group": fmt.Sprintf("group%d", i%5+1), "miner": 1000, "number": i, "proof_type": 8, "size": "32GiB", "state": "sealing", "submitted_at": ts(time.Duration(i+100) * time.Minute)}
		now := m{"phase": st, "state": state, "since": ts(time.Duration(i%977) * time.Minute), "attempt": 1}
		if state == "running" {
			now["host"] = fmt.Sprintf("host%d", i%500)
			now["percent"] = float64(i % 100)
		}
		if i%11 == 0 {
			r["state"], now["state"] = "parked", "parked"
			r["reason"] = "p2 disk_full: no space left on device while writing tree-c (needs 14.5 × 32 GiB)"
		}
		if i%7 == 3 {
			r["state"] = "finished"
			r["ended_at"] = ts(time.Duration(i) * time.Minute)
			r["now"] = []m{}
			return r
		}
		if i%5 == 0 {
			r["deadline_at"] = ts(-time.Duration(i%4000) * time.Minute)
		}
		r["now"] = []m{now}
		return r
	}
	rows := make([]m, n)
	for i := range rows {
		rows[i] = row(i)
	}
	flow := func() []m {
		var out []m
		for i, s := range steps {
			f := m{"phase": s, "waiting": i * 3 % 7, "running": 40 - i*4, "delayed": i % 2, "on_chain": 0, "parked": i % 3, "held": 0, "oldest_wait_seconds": float64(i * 733), "done_per_hour": 12 + i, "failed_per_hour": i % 3}
			if i == 2 || i == 6 {
				f["running"], f["on_chain"] = 0, 17
			}
			if i == 0 {
				f["held"] = 4
			}
			out = append(out, f)
		}
		return out
	}
	seq := 1000
	send := func(w http.ResponseWriter, v m) {
		v["schema"] = "sealfleet.v1"
		v["at"] = ts(0)
		v["sequence"] = seq
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	for _, p := range page.Patterns {
		mux.Handle(p, page.Handler())
	}
	mux.HandleFunc("GET /v1/overview", func(w http.ResponseWriter, _ *http.Request) {
		var groups []m
		for g := range 5 {
			groups = append(groups, m{"group": fmt.Sprintf("group%d", g+1), "sectors": m{"sealing": 100, "parked": g, "failed": 1, "cancelled": 0, "finished": 300}, "in_flight": 104, "hold_limit": 120, "held": g, "waiting": 12, "running": 70, "oldest_wait_seconds": 1234.0 * float64(g), "hosts": 100, "hosts_away": g % 2, "paused": []m{}, "phases": flow()})
		}
		send(w, m{"version": "v0.1", "ready": true, "sectors": m{"sealing": 5123, "parked": 909, "failed": 3, "cancelled": 1, "finished": 1428}, "phases": flow(), "groups": groups, "hosts": m{"up": 497, "draining": 1, "away": 2, "silent": 0}, "finished_per_day": 41.3, "alarms": []m{
			{"code": "sector_parked", "severity": "critical", "group": "group2", "count": 12, "since": ts(time.Hour), "message": "12 sectors of group2 are parked at p2: disk_full", "mend": "Free space on host7:/sealer, then redo them."},
			{"code": "no_host", "severity": "warning", "group": "group1", "phase": "p4", "since": ts(20 * time.Minute), "message": "No host serves p4 of group1; 7 wait", "mend": "Start a consumer with p4 in WORKERS."},
			{"code": "host_away", "severity": "info", "host": "host12", "since": ts(3 * time.Minute), "message": "host12 was last heard of 3 minutes ago"},
		}})
	})
	mux.HandleFunc("GET /v1/sectors", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		items := rows
		if s := q.Get("q"); s != "" || q.Get("state") != "" {
			items = nil
			for _, x := range rows {
				if strings.Contains(x["sector"].(string), s) && (q.Get("state") == "" || q.Get("state") == x["state"]) {
					items = append(items, x)
				}
			}
		}
		limit, _ := strconv.Atoi(q.Get("limit"))
		from, _ := strconv.Atoi(q.Get("cursor"))
		end := min(from+limit, len(items))
		a := m{"items": append([]m{}, items[from:end]...), "total": len(items)}
		if end < len(items) {
			a["next"] = strconv.Itoa(end)
		}
		send(w, a)
	})
	mux.HandleFunc("GET /v1/failed", func(w http.ResponseWriter, _ *http.Request) {
		items := []m{}
		for i := range 60 {
			items = append(items, m{"sector": fmt.Sprintf("s-t01000-%d", i*11), "group": "group2", "size": "32GiB", "phase": steps[i%8], "state": []string{"parked", "failing"}[i%2], "code": []string{"disk_full", "input_missing", "storage_unreachable"}[i%3], "class": "retryable", "message": "no space left on device while writing tree-c", "host": "host7", "attempt": 3, "issue": 3 + i%3, "at": ts(time.Duration(i) * time.Minute), "redo": i%2 == 0, "mend": "free space on /sealer, then redo"})
		}
		send(w, m{"items": items, "total": len(items)})
	})
	mux.HandleFunc("POST /v1/redo", func(w http.ResponseWriter, _ *http.Request) {
		send(w, m{"redone": 1, "refused": 1, "items": []m{{"sector": "s-t01000-0", "ok": true}, {"sector": "s-t01000-22", "ok": false, "code": "not_parked", "message": "p3 runs on host7"}}})
	})
	mux.HandleFunc("GET /v1/hosts", func(w http.ResponseWriter, _ *http.Request) {
		items := []m{}
		for i := range 500 {
			h := m{"host": fmt.Sprintf("host%d", i), "state": "up", "groups": []string{fmt.Sprintf("group%d", i%5+1)}, "seen_at": ts(time.Duration(i%9) * time.Second), "running": i % 4, "slots": []m{{"phase": "p1", "busy": i % 11, "slots": 10}, {"phase": "p2", "busy": i % 2, "slots": 1}, {"phase": "p6", "busy": 0, "slots": 2}},
				"status": m{"v": 1, "model": "AMD EPYC 7542", "cores": 64, "memory_total_bytes": 2 << 40, "memory_available_bytes": 700 << 30, "copy_bytes_per_second": 120e6 * float64(i%3), "disks": []m{{"name": "sealer", "path": "/sealer", "total_bytes": 14 << 40, "free_bytes": (1 + i%9) << 40, "reserved_bytes": 500 << 30}}, "findings": []m{}, "jobs": []m{{"group": "group1", "sector": "s-t01000-1", "phase": "p1", "attempt": 1, "since": ts(time.Hour), "note": "layer 4 of 11", "fraction": 0.36}}}}
			if i%37 == 5 {
				h["state"] = "away"
			}
			if i%50 == 7 {
				h["status"].(m)["findings"] = []m{{"code": "sealer_on_system_disk", "severity": "error", "subject": "/sealer", "evidence": "is on the system disk", "mend": "mount the array there"}}
			}
			items = append(items, h)
		}
		send(w, m{"items": items, "total": len(items)})
	})
	mux.HandleFunc("GET /v1/bus", func(w http.ResponseWriter, _ *http.Request) {
		var cs []m
		for g := range 3 {
			for _, p := range []string{"p1", "p2", "p3"} {
				cs = append(cs, m{"stream": "SEAL_TASKS", "name": fmt.Sprintf("group%d_%s", g+1, p), "group": fmt.Sprintf("group%d", g+1), "phase": p, "pending": g * 4, "in_flight": 7, "redelivered": g, "waiting_pulls": 3, "lag": 0})
			}
		}
		cs = append(cs, m{"stream": "SEAL_EVENTS", "name": "dispatchers", "pending": 0, "in_flight": 0, "redelivered": 0, "waiting_pulls": 2, "lag": 12})
		send(w, m{"connected": true, "server": "bus1", "set_aside": 0, "position": 120334, "streams": []m{{"name": "SEAL_EVENTS", "messages": 120345, "bytes": 99 << 20, "first_sequence": 1, "last_sequence": 120345, "last_at": ts(time.Second), "consumers": 4, "replicas": 3, "leader": "bus1"}, {"name": "SEAL_TASKS", "messages": 312, "bytes": 1 << 20, "first_sequence": 3, "last_sequence": 50231, "consumers": 36, "replicas": 3}}, "consumers": cs})
	})
	mux.HandleFunc("GET /v1/sectors/{sector}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("sector")
		h := func(x float64) string { return t0.Add(time.Duration((x - 9.5) * float64(time.Hour))).UTC().Format(time.RFC3339) }
		if id == "s-t01000-999999" {
			w.WriteHeader(404)
			_, _ = w.Write([]byte(`{"error":{"code":"unknown_sector","message":"No sector s-t01000-999999 was submitted.","near":["s-t01000-99"]}}`))
			return
		}
		at := func(p string, i, a int, st string, iss, cl, en float64) m {
			x := m{"phase": p, "issue": i, "attempt": a, "status": st, "issued_at": h(iss), "claimed_at": h(cl), "waited_seconds": (cl - iss) * 3600, "host": "host" + p[1:]}
			if en > 0 {
				x["ended_at"], x["took_seconds"] = h(en), (en-cl)*3600
			}
			if st == "failed" {
				x["result"] = m{"code": "disk_full", "class": "retryable", "message": "no space left on device"}
			}
			return x
		}
		rr := rows[1]
		out := m{"spec": m{"miner": 1000, "number": 1, "proof_type": 8, "storage_node": "nas3", "submitted_by": "ops@desk"}, "freed": 0, "doubted": []string{}, "outputs": m{}, "proof": m{}, "receipt": nil,
			"steps":    []m{{"phase": "p1", "status": "done"}, {"phase": "p2", "status": "done"}, {"phase": "precommit", "status": "done"}, {"phase": "p3", "status": "done"}, {"phase": "p4", "status": "running"}, {"phase": "p5", "status": "running"}, {"phase": "commit", "status": "waiting"}, {"phase": "p6", "status": "waiting"}},
			"attempts": []m{at("p1", 1, 1, "done", 0, .4, 4.1), at("p2", 1, 1, "failed", 4.1, 4.3, 4.9), at("p2", 2, 2, "done", 5, 5.6, 6.3), at("p3", 1, 1, "done", 8, 8.1, 8.3), at("p4", 1, 1, "running", 8.3, 9, 0), at("p5", 1, 1, "running", 8.3, 8.4, 0)},
			"gates":    []m{{"phase": "precommit", "state": "landed", "opened_at": h(6.3), "ended_at": h(8), "message_id": "bafy2bzace"}, {"phase": "commit", "state": "waiting"}},
			"deadlines": []m{{"name": "precommit_by", "at": h(10), "met": true}, {"name": "commit_by", "at": h(100), "met": false}},
			"operator":  []m{{"at": h(4.95), "type": "redo", "by": "ana@desk", "target": "p2", "reason": "disk freed"}}}
		for k, v := range rr {
			out[k] = v
		}
		out["sector"], out["state"] = id, "sealing"
		out["submitted_at"] = h(0)
		out["now"] = []m{{"phase": "p4", "state": "running", "host": "host4", "percent": 41.0}, {"phase": "p5", "state": "running"}}
		send(w, out)
	})
	mux.HandleFunc("GET /v1/sectors/{sector}/events", func(w http.ResponseWriter, r *http.Request) {
		items := []m{}
		for i := range 40 {
			items = append(items, m{"sequence": 100 + i*3, "v": 1, "id": fmt.Sprint("e", i), "type": []string{"issued", "claimed", "progress", "done"}[i%4], "group": "group1", "sector": r.PathValue("sector"), "phase": steps[i/6], "at": ts(time.Duration(40-i) * 10 * time.Minute), "host": "host4", "note": "layer 3 of 11"})
		}
		send(w, m{"items": items})
	})
	mux.HandleFunc("GET /v1/sectors/{sector}/why", func(w http.ResponseWriter, r *http.Request) {
		send(w, m{"waits": []m{{"phase": "p4", "state": "running", "why": "runs on host4 for 31 m, 41 % done"}, {"phase": "p6", "state": "blocked", "why": "waits for p4, p5 and the landed proof", "mend": "nothing to do"}}})
	})
	mux.HandleFunc("GET /v1/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "event: heartbeat\ndata: {\"at\":%q,\"sequence\":%d}\n\n", ts(0), seq)
		f, _ := w.(http.Flusher)
		f.Flush()
		every, _ := time.ParseDuration(os.Getenv("SEALFLEET_PAGE_EVERY"))
		if every == 0 {
			every = time.Second
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
			seq++
			types := []string{"issued", "claimed", "done", "failed"}
			e, _ := json.Marshal(m{"sequence": seq, "v": 1, "id": fmt.Sprint("x", seq), "type": types[seq%4], "group": "group1", "sector": fmt.Sprint("s-t01000-", seq%50), "phase": steps[seq%8], "host": "host3", "at": ts(0)})
			_, _ = fmt.Fprintf(w, "id: %d\nevent: event\ndata: %s\n\n", seq, e)
			f.Flush()
		}
	})
	sort.Strings(states)
	srv := &http.Server{Addr: addr, Handler: mux}
	fmt.Println(srv.ListenAndServe())
}
