package bus

import (
	"encoding/json"
	"fmt"
)

// Notices are what hosts tell of themselves for whoever listens now: plain NATS, no
// stream keeps them, nothing depends on them.

// NoticeSubject is where a host's notices of a kind go: host.<group>.<host>.<kind>.
func NoticeSubject(group, host, kind string) string {
	return presencePrefix + group + "." + host + "." + kind
}

// NoticeDoctor is the kind of the doctor's reports.
const NoticeDoctor = "doctor"

// Notice tells one. Nobody may hear it: an error only says that it did not leave.
func (b *Bus) Notice(group, host, kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("notice: %w", err)
	}
	if err := b.nc.Publish(NoticeSubject(group, host, kind), data); err != nil {
		return unreachable(err)
	}
	return nil
}
