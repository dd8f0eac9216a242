package bus

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// NoticeAudit is the kind of a host's word on a stored sector that it audited, a StoredAudit.
const NoticeAudit = "audit"

// The results of an audit that say something of the sector.
const (
	AuditOK         = "ok"
	AuditBad        = "bad"
	AuditUnreadable = "unreadable"
)

// StoredAudit is what an audit found of one sector on one storage node.
type StoredAudit struct {
	Node    string    `json:"node"`
	Sector  string    `json:"sector"`
	Result  string    `json:"result"` // ok, bad or unreadable
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at"`
}

// WatchAudits calls fn for each audit that a host tells of, until stop is called. Calls
// come one after the other.
func (b *Bus) WatchAudits(fn func(group, host string, a StoredAudit)) (stop func(), err error) {
	sub, err := b.nc.Subscribe(NoticeSubject("*", "*", NoticeAudit), func(m *nats.Msg) {
		var a StoredAudit
		t := strings.Split(m.Subject, ".")
		if err := json.Unmarshal(m.Data, &a); err != nil || len(t) != 4 {
			b.log.Warn("a host's word on an audit cannot be read", "subject", m.Subject, "error", err)
			return
		}
		fn(t[1], t[2], a)
	})
	if err != nil {
		return nil, fmt.Errorf("listen to audits: %w", unreachable(err))
	}
	return func() { _ = sub.Unsubscribe() }, nil // at the end of the connection it goes anyway
}
