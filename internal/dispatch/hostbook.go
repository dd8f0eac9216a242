package dispatch

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

var (
	hostUpDesc       = prometheus.NewDesc("sealfleet_host_up", "1 for a host that tells of itself, 0 for one that has been silent for half a minute without having drained.", []string{"host"}, nil)
	hostHeardDesc    = prometheus.NewDesc("sealfleet_host_last_heard_timestamp_seconds", "When a host last told of itself.", []string{"host"}, nil)
	hostDrainDesc    = prometheus.NewDesc("sealfleet_host_draining", "1 for a host that takes nothing new.", []string{"host"}, nil)
	hostSlotsDesc    = prometheus.NewDesc("sealfleet_host_slots", "Slots of a host by their entry in WORKERS, as it tells.", []string{"host", "entry"}, nil)
	hostBusyDesc     = prometheus.NewDesc("sealfleet_host_slots_busy", "Slots of a host that work, by their entry in WORKERS.", []string{"host", "entry"}, nil)
	hostFreeDesc     = prometheus.NewDesc("sealfleet_host_disk_free_bytes", "Free space of a share or storage node as a host sees it.", hostDiskLabels, nil)
	hostSizeDesc     = prometheus.NewDesc("sealfleet_host_disk_size_bytes", "Size of a share or storage node as a host sees it.", hostDiskLabels, nil)
	hostPromisedDesc = prometheus.NewDesc("sealfleet_host_disk_reserved_bytes", "What running phases will still write on a share.", hostDiskLabels, nil)
	hostRoomDesc     = prometheus.NewDesc("sealfleet_host_disk_unpromised_bytes", "Free space less what running phases will still write.", hostDiskLabels, nil)
	hostMemoryDesc   = prometheus.NewDesc("sealfleet_host_memory_available_bytes", "Memory that is available on a host.", []string{"host"}, nil)
	hostCopyDesc     = prometheus.NewDesc("sealfleet_host_copy_bytes_per_second", "How fast a host's copies are now.", []string{"host"}, nil)
	hostFoundDesc    = prometheus.NewDesc("sealfleet_host_findings", "What the doctor found on a host, by severity (warn or refuse).", []string{"host", "severity"}, nil)
	phaseHostsDesc   = prometheus.NewDesc("sealfleet_phase_hosts", "Living hosts of a group that offer slots for a phase.", stationLabels, nil)
	phaseSlotsDesc   = prometheus.NewDesc("sealfleet_phase_slots", "Slots that the living hosts of a group offer for a phase; one that serves several phases counts for each.", stationLabels, nil)
	badDesc          = prometheus.NewDesc("sealfleet_stored_bad", "Stored sectors of a storage node whose last audit failed.", []string{"node"}, nil)

	hostDiskLabels = []string{"host", "disk"}
	hostDescs      = []*prometheus.Desc{
		hostUpDesc, hostHeardDesc, hostDrainDesc, hostSlotsDesc, hostBusyDesc, hostFreeDesc, hostSizeDesc, hostPromisedDesc, hostRoomDesc,
		hostMemoryDesc, hostCopyDesc, hostFoundDesc, phaseHostsDesc, phaseSlotsDesc, badDesc,
	}
)

const (
	hostSilent  = 6 * bus.StatusEvery // from then on a host is missed
	hostForget  = 7 * 24 * time.Hour  // it is not coming back
	mostHosts   = 5000                // what more tell is not kept: their names come from the wire
	mostNodes   = 1000
	mostBad     = 100_000
	mostEntries = 32 // of WORKERS, disks: of one host
)

// hostBook keeps what hosts last told of themselves. It is empty after a start: hosts
// tell every few seconds.
type hostBook struct {
	audits *prometheus.CounterVec

	mu    sync.Mutex
	hosts map[string]*hostTold
	nodes map[string]map[string]struct{} // stored sectors whose last audit failed, by node
	bad   int
}

type hostTold struct {
	status bus.HostStatus
	heard  time.Time // by this machine's clock
}

func newHostBook() *hostBook {
	return &hostBook{
		hosts: map[string]*hostTold{}, nodes: map[string]map[string]struct{}{},
		audits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_stored_audits_total", Help: "Stored sectors that hosts audited while this dispatcher listened, by result: ok, bad or unreadable.",
		}, []string{"node", "result"}),
	}
}

// hear takes a host's status.
func (h *hostBook) hear(_ string, s bus.HostStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hosts[s.Host] == nil && len(h.hosts) >= mostHosts {
		return
	}
	s.Slots, s.Disks = s.Slots[:min(len(s.Slots), mostEntries)], s.Disks[:min(len(s.Disks), mostEntries)]
	h.hosts[s.Host] = &hostTold{s, time.Now()}
}

// audited takes what an audit of a stored sector found.
func (h *hostBook) audited(_, _ string, a bus.StoredAudit) {
	if a.Node == "" || a.Result != bus.AuditOK && a.Result != bus.AuditBad && a.Result != bus.AuditUnreadable {
		return // it could not be told
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sectors := h.nodes[a.Node]
	if sectors == nil {
		if len(h.nodes) >= mostNodes {
			return
		}
		sectors = map[string]struct{}{}
		h.nodes[a.Node] = sectors
	}
	h.audits.WithLabelValues(a.Node, a.Result).Inc()
	_, was := sectors[a.Sector]
	switch {
	case a.Result == bus.AuditOK && was:
		delete(sectors, a.Sector)
		h.bad--
	case a.Result != bus.AuditOK && !was && h.bad < mostBad:
		sectors[a.Sector] = struct{}{}
		h.bad++
	}
}

// told returns what hosts last told of themselves.
func (h *hostBook) told() map[string]*HostSeen {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make(map[string]*HostSeen, len(h.hosts))
	for name, t := range h.hosts {
		s := t.status
		all[name] = &HostSeen{Host: name, Status: &s, Heard: t.heard, Groups: slices.Clone(s.Groups)}
	}
	return all
}

// model is a host's processor, empty if it did not tell.
func (h *hostBook) model(host string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.hosts[host]; t != nil {
		return t.status.Model
	}
	return ""
}

// offers is what living hosts have slots for.
type offers struct {
	told  bool // some host has told of itself
	hosts map[station]int
	slots map[station]int
}

func (h *hostBook) offers(now time.Time) *offers {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := &offers{told: len(h.hosts) > 0, hosts: map[station]int{}, slots: map[station]int{}}
	for _, t := range h.hosts {
		if now.Sub(t.heard) > hostSilent || t.status.Draining {
			continue
		}
		for _, g := range t.status.Groups {
			seen := map[phases.Step]bool{}
			for _, e := range t.status.Slots {
				for _, p := range e.Phases {
					if !p.IsPhase() {
						continue
					}
					at := station{g, p}
					o.slots[at] += e.Slots
					if !seen[p] {
						seen[p] = true
						o.hosts[at]++
					}
				}
			}
		}
	}
	return o
}

// unserved is how many of the tasks that wait nobody can take. Hosts of a release that
// tells nothing of itself count by what they do, or were seen to do.
func (o *offers) unserved(a Advice) int {
	if o.hosts[station{a.Group, a.Phase}] > 0 || a.Running > 0 || !o.told && a.Slots > 0 {
		return 0
	}
	return a.Waiting
}

// Describe implements prometheus.Collector.
func (h *hostBook) Describe(ch chan<- *prometheus.Desc) {
	h.audits.Describe(ch)
	for _, d := range hostDescs {
		ch <- d
	}
}

func (h *hostBook) collect(ch chan<- prometheus.Metric, now time.Time) {
	h.audits.Collect(ch)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	o := h.offers(now)
	for at, n := range o.hosts {
		gauge(phaseHostsDesc, float64(n), at.group, string(at.step))
		gauge(phaseSlotsDesc, float64(o.slots[at]), at.group, string(at.step))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for node, sectors := range h.nodes {
		gauge(badDesc, float64(len(sectors)), node)
	}
	for name, t := range h.hosts {
		silent := now.Sub(t.heard)
		if silent > hostForget || silent > hostSilent && t.status.Draining {
			delete(h.hosts, name) // gone as it said, or for good
			continue
		}
		up := silent <= hostSilent
		gauge(hostUpDesc, oneIf(up), name)
		gauge(hostHeardDesc, float64(t.heard.UnixMilli())/1000, name)
		if up {
			t.collect(gauge)
		}
	}
}

func (t *hostTold) collect(gauge func(*prometheus.Desc, float64, ...string)) {
	s := &t.status
	gauge(hostDrainDesc, oneIf(s.Draining), s.Host)
	slots, busy := map[string]int{}, map[string]int{}
	for _, e := range s.Slots {
		slots[e.Entry] += e.Slots
		busy[e.Entry] += e.Busy
	}
	for entry, n := range slots {
		gauge(hostSlotsDesc, float64(n), s.Host, entry)
		gauge(hostBusyDesc, float64(busy[entry]), s.Host, entry)
	}
	if s.MemoryTotal > 0 {
		gauge(hostMemoryDesc, float64(s.MemoryFree), s.Host)
	}
	gauge(hostCopyDesc, s.CopyRate, s.Host)
	disks := map[string]bool{}
	for _, d := range s.Disks {
		if disks[d.Name] || d.Total == 0 {
			continue
		}
		disks[d.Name] = true
		gauge(hostFreeDesc, float64(d.Free), s.Host, d.Name)
		gauge(hostSizeDesc, float64(d.Total), s.Host, d.Name)
		gauge(hostPromisedDesc, float64(d.Reserved), s.Host, d.Name)
		gauge(hostRoomDesc, float64(d.Free)-float64(d.Reserved), s.Host, d.Name)
	}
	found := map[string]int{"warn": 0, "refuse": 0}
	for _, f := range s.Findings {
		if _, counted := found[f.Severity]; counted {
			found[f.Severity]++
		}
	}
	for severity, n := range found {
		gauge(hostFoundDesc, float64(n), s.Host, severity)
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
