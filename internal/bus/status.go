package bus

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
)

// NoticeStatus is the kind of a host's report on itself, a HostStatus.
const NoticeStatus = "status"

// StatusEvery is how often a host tells its status; it also tells at once when a phase
// begins or ends. A host that was silent for three times as long is away.
const StatusEvery = 5 * time.Second

// HostStatus is what a host tells of itself. Fields may be added; none changes its
// meaning.
type HostStatus struct {
	V        int       `json:"v"`
	Host     string    `json:"host"`
	IP       string    `json:"ip,omitempty"`
	Groups   []string  `json:"groups"`
	At       time.Time `json:"at"`
	Since    time.Time `json:"since"` // the program's start
	Version  string    `json:"version"`
	Draining bool      `json:"draining,omitempty"` // takes nothing new
	// QuietIn is an estimate of how long until nothing runs any more, in seconds; only of
	// a host that drains, negative if it is not known.
	QuietIn float64     `json:"quiet_in_seconds,omitempty"`
	Slots   []HostSlots `json:"slots"`
	Jobs    []HostJob   `json:"jobs"`
	// Waiting is why queues rest although there are slots: disk, memory, cores, doctor.
	Waiting []string `json:"waiting,omitempty"`

	Model       string      `json:"model,omitempty"` // of the processor
	Cores       int         `json:"cores,omitempty"` // that phases may use
	MemoryTotal uint64      `json:"memory_total_bytes,omitempty"`
	MemoryFree  uint64      `json:"memory_available_bytes,omitempty"`
	Disks       []HostDisk  `json:"disks,omitempty"`
	CopyLimit   int64       `json:"copy_limit_bytes_per_second,omitempty"` // 0: unlimited
	CopyRate    float64     `json:"copy_bytes_per_second,omitempty"`
	Findings    []HostFound `json:"findings,omitempty"` // of the doctor, without what is ok
}

// HostSlots is one entry of WORKERS.
type HostSlots struct {
	Entry  string        `json:"entry"` // 10:p1
	Phases []phases.Step `json:"phases"`
	Slots  int           `json:"slots"`
	Busy   int           `json:"busy"`
}

// HostJob is a phase that runs.
type HostJob struct {
	Group    string      `json:"group"`
	Sector   string      `json:"sector"`
	Phase    phases.Step `json:"phase"`
	Attempt  int         `json:"attempt"`
	Since    time.Time   `json:"since"`
	Note     string      `json:"note,omitempty"` // layer 3/11 40 %
	Fraction float64     `json:"fraction,omitempty"`
	Reported bool        `json:"unreported,omitempty"` // it has ended, and the bus does not know yet
}

// HostDisk is a share or storage node as this host sees it.
type HostDisk struct {
	Name     string `json:"name"` // LOCAL_DIR, or the storage node's
	Path     string `json:"path"`
	Total    uint64 `json:"total_bytes"`
	Free     uint64 `json:"free_bytes"`
	Reserved uint64 `json:"reserved_bytes,omitempty"`
}

// HostFound is a finding of the doctor.
type HostFound struct {
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Evidence string `json:"evidence"`
	Mend     string `json:"mend,omitempty"`
}

// WatchHosts calls fn for each status that a host tells, until stop is called. Calls come
// one after the other.
func (b *Bus) WatchHosts(fn func(group string, s HostStatus)) (stop func(), err error) {
	sub, err := b.nc.Subscribe(NoticeSubject("*", "*", NoticeStatus), func(m *nats.Msg) {
		var s HostStatus
		t := strings.Split(m.Subject, ".")
		if err := json.Unmarshal(m.Data, &s); err != nil || len(t) != 4 || s.Host != t[2] {
			b.log.Warn("a host's status cannot be read", "subject", m.Subject, "error", err)
			return
		}
		fn(t[1], s)
	})
	if err != nil {
		return nil, fmt.Errorf("listen to hosts: %w", unreachable(err))
	}
	return func() { _ = sub.Unsubscribe() }, nil // at the end of the connection it goes anyway
}
