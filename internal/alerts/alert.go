package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/bus"
)

// States of an alarm.
const (
	Firing   = "firing"
	Resolved = "resolved"
)

// Alert is one alarm, as it is kept on the bus and shown to people.
type Alert struct {
	Name        string            `json:"name"`
	Severity    Severity          `json:"severity"`
	State       string            `json:"state"` // firing or resolved
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"` // summary, mend, runbook_url, examples
	Value       float64           `json:"value"`
	StartsAt    time.Time         `json:"starts_at"`
	EndsAt      time.Time         `json:"ends_at,omitzero"`
	SeenAt      time.Time         `json:"seen_at"`                // when its owner last found it
	NotifiedAt  time.Time         `json:"notified_at,omitzero"`   // when it was last told
	MutedBy     string            `json:"muted_by,omitempty"`     // filled in by List: who muted it
	MutedUntil  time.Time         `json:"muted_until,omitzero"`   // zero: until it is unmuted
	MutedFor    string            `json:"muted_reason,omitempty"` //
}

// Group is the alarm's group, empty if it is of none.
func (a *Alert) Group() string { return a.Labels["group"] }

// controlKey is where an alarm with these labels is kept.
func controlKey(labels map[string]string) string {
	key := []string{bus.ControlAlert, labels["alertname"]}
	for _, k := range sortedKeys(labels) {
		if k != "alertname" {
			key = append(key, token(labels[k]))
		}
	}
	return strings.Join(key, ".")
}

// token makes a label's value one token of a subject. What had to be changed gets a hash,
// so that two values stay two.
func token(s string) string {
	const longest = 40
	clean := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '_'
	}, s)
	if clean == s && len(s) > 0 && len(s) <= longest {
		return s
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return fmt.Sprintf("%s_%016x", clean[:min(len(clean), longest)], h.Sum64())
}

func decode(c bus.Control) (*Alert, error) {
	a := &Alert{}
	if err := json.Unmarshal(c.Value, a); err != nil {
		return nil, fmt.Errorf("control %s holds no alarm: %w", c.Key, err)
	}
	if a.Labels["alertname"] == "" {
		return nil, fmt.Errorf("control %s holds an alarm without a name", c.Key)
	}
	return a, nil
}

// MuteKey is the key of the control that mutes an alarm in a group; all stands for every
// alarm, or every group.
func MuteKey(name, group string) string { return bus.ControlMute + "." + name + "." + group }

// All stands for every alarm or every group in a mute.
const All = "all"

// mutes are the mutes in force, by their key.
type mutes map[string]bus.Control

func mutesOf(list []bus.Control, now time.Time) mutes {
	m := mutes{}
	for _, c := range list {
		if c.InForce(now) {
			m[c.Key] = c
		}
	}
	return m
}

// of finds what mutes an alarm.
func (m mutes) of(labels map[string]string) (bus.Control, bool) {
	for _, name := range []string{labels["alertname"], All} {
		for _, group := range []string{labels["group"], All} {
			if c, is := m[MuteKey(name, group)]; is && group != "" {
				return c, true
			}
		}
	}
	return bus.Control{}, false
}

// List reads the alarms from the bus: those that stand, the most severe and oldest first,
// and if ended is set those that are over, the latest first.
func List(ctx context.Context, b *bus.Bus, ended bool) ([]Alert, error) {
	controls, err := b.Controls(ctx, bus.ControlAlert)
	if err != nil {
		return nil, fmt.Errorf("read the alarms: %w", err)
	}
	muted, err := b.Controls(ctx, bus.ControlMute)
	if err != nil {
		return nil, fmt.Errorf("read what is muted: %w", err)
	}
	m := mutesOf(muted, time.Now())
	list := []Alert{}
	for _, c := range controls {
		a, err := decode(c)
		if err != nil || !c.On && !ended {
			continue
		}
		a.State = Resolved
		if c.On {
			a.State = Firing
			if by, is := m.of(a.Labels); is {
				a.MutedBy, a.MutedUntil, a.MutedFor = by.By, by.Until, by.Reason
			}
		}
		list = append(list, *a)
	}
	rank := map[Severity]int{Critical: 0, Warning: 1, Info: 2}
	slices.SortFunc(list, func(a, b Alert) int {
		if a.State != b.State {
			return strings.Compare(a.State, b.State) // firing before resolved
		}
		if a.State == Resolved {
			return b.EndsAt.Compare(a.EndsAt)
		}
		if d := rank[a.Severity] - rank[b.Severity]; d != 0 {
			return d
		}
		return a.StartsAt.Compare(b.StartsAt)
	})
	return list, nil
}
