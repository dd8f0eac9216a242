package dispatch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sealfleet/internal/bus"
)

// GroupLimit is how fast all copies of a group may be together, and who copies now. Its
// JSON is a contract.
type GroupLimit struct {
	Group string `json:"group"`
	// BytesPerSec counts reading back too; 0: unlimited.
	BytesPerSec int64     `json:"bytes_per_second"`
	By          string    `json:"by,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	At          time.Time `json:"at,omitzero"`
	Until       time.Time `json:"until,omitzero"` // by itself unlimited again
	Copying     []Copier  `json:"copying"`
}

// Copier is a host that copies for a group now.
type Copier struct {
	Host   string `json:"host"`
	Copies int    `json:"copies"`
	// Share is what it takes of the group's limit, in bytes per second; 0: there is none.
	Share int64 `json:"share_bytes_per_second"`
	// Most is what its own limits let it take; 0: anything.
	Most int64 `json:"most_bytes_per_second,omitempty"`
}

// copyingWait is how long hosts have to say that they copy.
const copyingWait = 400 * time.Millisecond

// Limits returns the limits that are in force or were taken back, by group, with the
// hosts that copy. Of the groups given those without a limit are in it, too.
func Limits(ctx context.Context, b *bus.Bus, groups []string) ([]GroupLimit, error) {
	controls, err := b.Controls(ctx, bus.ControlLimit)
	if err != nil && !errors.Is(err, bus.ErrNoStream) {
		return nil, fmt.Errorf("read the limits of groups: %w", err)
	}
	byGroup := map[string]GroupLimit{}
	for _, g := range groups {
		byGroup[g] = GroupLimit{Group: g}
	}
	now := b.Now()
	for _, c := range controls {
		if _, wanted := byGroup[c.Name()]; len(groups) > 0 && !wanted {
			continue
		}
		n, err := c.CopyLimit(now)
		if err != nil {
			return nil, err
		}
		byGroup[c.Name()] = GroupLimit{Group: c.Name(), BytesPerSec: n, By: c.By, Reason: c.Reason, At: c.At, Until: c.Until}
	}
	list := []GroupLimit{}
	for name, l := range byGroup {
		said, err := b.AskCopying(ctx, name, "dispatcher", copyingWait)
		if err != nil {
			return nil, fmt.Errorf("ask who copies for %s: %w", name, err)
		}
		l.Copying = []Copier{}
		for _, c := range said {
			l.Copying = append(l.Copying, Copier{c.Host, c.Copies, c.Share, c.Most})
		}
		slices.SortFunc(l.Copying, func(a, b Copier) int { return cmp.Compare(a.Host, b.Host) })
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b GroupLimit) int { return cmp.Compare(a.Group, b.Group) })
	return list, nil
}

// SetLimit bounds how many bytes per second all copies of a group move together, reading
// back included; 0 takes the bound away. Hosts take it at once, for copies under way too.
// until, if it is not zero, is when it ends by itself. Who, when and why stay on the bus.
func SetLimit(ctx context.Context, b *bus.Bus, group string, bytesPerSec int64, until time.Time, by, why string) error {
	if bytesPerSec < 0 {
		return fmt.Errorf("%w: %d bytes per second: use 0 (unlimited) or more", ErrBadSpec, bytesPerSec)
	}
	// Only a group that there is: hosts of another would never hear of it.
	if err := checkGroup(ctx, b, group); err != nil {
		return err
	}
	c := bus.Control{Key: bus.ControlLimit + "." + group, On: bytesPerSec > 0, By: by, Reason: why, Until: until}
	if bytesPerSec > 0 {
		value, err := json.Marshal(bytesPerSec)
		if err != nil {
			return err
		}
		c.Value = value
	}
	_, err := b.SetControl(ctx, c)
	return err
}
