package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sealfleet/internal/alerts"
	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// operatorKinds are the kinds of controls that operators set, or leave as a record.
var operatorKinds = []string{bus.ControlDrain, bus.ControlPause, bus.ControlLimit, bus.ControlMute, bus.ControlAside}

// controls are what operators have set, as the bus last told.
type controls struct {
	mu       sync.Mutex
	known    map[string]bus.Control
	watchers map[chan bus.Control]struct{}
}

func (c *controls) set(list []bus.Control) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := make(map[string]bus.Control, len(list))
	for _, ctl := range list {
		fresh[ctl.Key] = ctl
		if c.known[ctl.Key].ID == ctl.ID {
			continue
		}
		for w := range c.watchers {
			select {
			case w <- ctl:
			default: // it hears of the next one, and reads them all
			}
		}
	}
	c.known = fresh
}

func (c *controls) watch() (ch chan bus.Control, stop func()) {
	const room = 16
	ch = make(chan bus.Control, room)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watchers == nil {
		c.watchers = map[chan bus.Control]struct{}{}
	}
	c.watchers[ch] = struct{}{}
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, ch)
	}
}

// inForce returns the control of a key that counts now, or nil.
func (c *controls) inForce(key string, now time.Time) *Control {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctl, is := c.known[key]; is && ctl.InForce(now) {
		v := controlOf(ctl, now)
		return &v
	}
	return nil
}

// paused lists a group's pauses.
func (c *controls) paused(group string, now time.Time) []Control {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Control{}
	for key, ctl := range c.known {
		if strings.HasPrefix(key, bus.ControlPause+"."+group+".") && ctl.InForce(now) {
			list = append(list, controlOf(ctl, now))
		}
	}
	slices.SortFunc(list, func(a, b Control) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// Control is a control as the API tells it.
type Control struct {
	bus.Control
	Counts bool `json:"in_force"`
}

func controlOf(c bus.Control, now time.Time) Control { return Control{c, c.InForce(now)} }

func (a *API) listControls(r *http.Request) (any, error) {
	p := query(r)
	kinds := p.list("kind", []string{bus.ControlDrain, bus.ControlPause, bus.ControlLimit, bus.ControlMute})
	all := p.yes("all")
	if err := p.done(); err != nil {
		return nil, err
	}
	now := a.Bus.Now()
	out := moment[Control]{Schema, now.UTC(), []Control{}}
	a.controls.mu.Lock()
	defer a.controls.mu.Unlock()
	for _, c := range a.controls.known {
		if (all || c.InForce(now)) && (len(kinds) == 0 || slices.Contains(kinds, c.Kind())) {
			out.Items = append(out.Items, controlOf(c, now))
		}
	}
	slices.SortFunc(out.Items, func(a, b Control) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

func (a *API) controlHistory(r *http.Request) (any, error) {
	key := r.PathValue("key")
	history, err := a.Bus.ControlHistory(r.Context(), key)
	if err != nil {
		return nil, err
	}
	if len(history) == 0 {
		return nil, failf(http.StatusNotFound, "unknown_control", "%q was never set", key).mended("GET /v1/controls?all=true lists what was")
	}
	now := a.Bus.Now()
	out := moment[Control]{Schema, now.UTC(), []Control{}}
	for _, c := range slices.Backward(history) {
		v := controlOf(c, now)
		v.Counts = v.Counts && len(out.Items) == 0 // only the last one counts
		out.Items = append(out.Items, v)
	}
	return out, nil
}

// Group is a group as the API tells it.
type Group struct {
	dispatch.GroupView
	Hosts     int       `json:"hosts"`
	HostsAway int       `json:"hosts_away"`
	Paused    []Control `json:"paused"`
}

func (a *API) groupsOf(farm *dispatch.FarmView, hosts []Host) []Group {
	list, now := []Group{}, a.Bus.Now()
	for _, g := range farm.Groups {
		v := Group{GroupView: g, Paused: a.controls.paused(g.Group, now)}
		v.Phases = slices.Clone(g.Phases) // the farm's are shared
		for _, h := range hosts {
			if slices.Contains(h.Groups, g.Group) {
				v.Hosts++
				if h.State == HostAway {
					v.HostsAway++
				}
			}
		}
		for i := range v.Phases {
			f := &v.Phases[i]
			f.Paused = a.controls.inForce(bus.ControlPause+"."+g.Group+".all", now) != nil || a.controls.inForce(bus.ControlPause+"."+g.Group+"."+string(f.Phase), now) != nil
		}
		list = append(list, v)
	}
	return list
}

func (a *API) groups(r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	farm := a.Dispatcher.Farm()
	return struct {
		Schema string    `json:"schema"`
		At     time.Time `json:"at"`
		Seq    uint64    `json:"sequence"`
		Items  []Group   `json:"items"`
	}{Schema, farm.At, farm.Seq, a.groupsOf(farm, a.hostsNow())}, nil
}

// States of hosts.
const (
	HostUp       = "up"
	HostDraining = "draining"
	HostAway     = "away"   // was heard of, and is not any more
	HostSilent   = "silent" // was seen to work, and tells nothing of itself
)

// Host is a host as the API tells it.
type Host struct {
	Host    string          `json:"host"`
	State   string          `json:"state"`
	Groups  []string        `json:"groups"`
	SeenAt  time.Time       `json:"seen_at,omitzero"`
	Running int             `json:"running"`
	Slots   []HostSlots     `json:"slots"`
	Drain   *Control        `json:"drain,omitempty"`
	QuietIn *float64        `json:"quiet_in_seconds,omitempty"`
	Status  *bus.HostStatus `json:"status,omitempty"`
}

// HostSlots counts a host's slots for one phase.
type HostSlots struct {
	Phase phases.Step `json:"phase"`
	Busy  int         `json:"busy"`
	Slots int         `json:"slots"`
}

func (a *API) hostsNow() []Host {
	list, now := []Host{}, a.Bus.Now()
	for _, seen := range a.Dispatcher.Hosts() {
		h := Host{Host: seen.Host, State: HostSilent, Groups: seen.Groups, SeenAt: seen.Last, Running: seen.Running, Slots: []HostSlots{}, Drain: a.controls.inForce(bus.ControlDrain+"."+seen.Host, now)}
		if h.Groups == nil {
			h.Groups = []string{}
		}
		if s := seen.Status; s != nil {
			h.Status, h.SeenAt, h.State = s, seen.Heard.UTC(), HostUp
			h.Running = len(s.Jobs)
			switch {
			case seen.Away():
				h.State = HostAway
			case s.Draining || h.Drain != nil:
				h.State = HostDraining
				h.QuietIn = &s.QuietIn
			}
			h.Slots = slotsOf(s)
		}
		list = append(list, h)
	}
	return list
}

// slotsOf counts a host's slots by phase. An entry of WORKERS that serves several phases
// counts for each; what is busy is told by what runs.
func slotsOf(s *bus.HostStatus) []HostSlots {
	list := []HostSlots{}
	for _, step := range phases.Phases() {
		v := HostSlots{Phase: step}
		for _, e := range s.Slots {
			if slices.Contains(e.Phases, step) {
				v.Slots += e.Slots
			}
		}
		for _, j := range s.Jobs {
			if j.Phase == step {
				v.Busy++
			}
		}
		if v.Slots > 0 || v.Busy > 0 {
			list = append(list, v)
		}
	}
	return list
}

func (a *API) hosts(r *http.Request) (any, error) {
	p := query(r)
	groups, states := p.groups(), p.list("state", []string{HostUp, HostDraining, HostAway, HostSilent})
	limit, after := p.page(r)
	if err := p.done(); err != nil {
		return nil, err
	}
	now := time.Now()
	all := slices.DeleteFunc(a.hostsNow(), func(h Host) bool {
		return len(states) > 0 && !slices.Contains(states, h.State) ||
			len(groups) > 0 && !slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(h.Groups, g) })
	})
	from := 0
	if after != nil {
		from = min(int(after.Rank), len(all))
	}
	to := min(from+limit, len(all))
	var more *dispatch.Key
	if to < len(all) {
		more = &dispatch.Key{Rank: int64(to)}
	}
	return struct {
		Schema string    `json:"schema"`
		At     time.Time `json:"at"`
		Total  int       `json:"total"`
		Next   string    `json:"next,omitempty"`
		Items  []Host    `json:"items"`
	}{Schema, now.UTC(), len(all), next(r, p, more), all[from:to]}, nil
}

// hostNamed finds a host, or says which names look alike.
func (a *API) hostNamed(name string) (*Host, error) {
	f := failf(http.StatusNotFound, "unknown_host", "no host %s was ever heard of", name)
	var names []string
	for _, h := range a.hostsNow() {
		if h.Host == name {
			return &h, nil
		}
		names = append(names, h.Host)
	}
	f.Near = dispatch.Near(name, slices.Values(names))
	return nil, f
}

func (a *API) host(r *http.Request) (any, error) {
	h, err := a.hostNamed(r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	return struct {
		Schema string    `json:"schema"`
		At     time.Time `json:"at"`
		Item   *Host     `json:"item"`
	}{Schema, time.Now().UTC(), h}, nil
}

// alarm is an alarm as the API tells it.
type alarm struct {
	Code     string    `json:"code"`
	Severity string    `json:"severity"`
	Group    string    `json:"group,omitempty"`
	Phase    string    `json:"phase,omitempty"`
	Sector   string    `json:"sector,omitempty"`
	Host     string    `json:"host,omitempty"`
	Count    int       `json:"count,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Message  string    `json:"message"`
	Mend     string    `json:"mend,omitempty"`
}

// alarms are read from the bus, not more often than every two seconds: a page full of
// browsers must not ask it for each.
type alarms struct {
	mu   sync.Mutex
	at   time.Time
	list []alarm
}

const alarmsFor = 2 * time.Second

func (a *API) alarmsNow(ctx context.Context) []alarm {
	a.alarms.mu.Lock()
	defer a.alarms.mu.Unlock()
	if time.Since(a.alarms.at) < alarmsFor {
		return a.alarms.list
	}
	ctx, cancel := context.WithTimeout(ctx, alarmsFor)
	defer cancel()
	found, err := alerts.List(ctx, a.Bus, false)
	if err != nil {
		if a.alarms.list == nil {
			return []alarm{}
		}
		return a.alarms.list // what was last known; the bus's own trouble is told by its alarm
	}
	list := []alarm{}
	for _, x := range found {
		if x.MutedBy != "" {
			continue
		}
		list = append(list, alarm{
			Code: x.Name, Severity: string(x.Severity), Group: x.Labels["group"], Phase: x.Labels["phase"], Host: x.Labels["host"],
			Since: x.StartsAt, Message: x.Annotations["summary"], Mend: x.Annotations["mend"],
		})
	}
	a.alarms.at, a.alarms.list = time.Now(), list
	return list
}

func (a *API) overview(r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	farm := a.Dispatcher.Farm()
	hosts := a.hostsNow()
	counts := map[string]int{HostUp: 0, HostDraining: 0, HostAway: 0, HostSilent: 0}
	for _, h := range hosts {
		counts[h.State]++
	}
	return struct {
		Schema         string                `json:"schema"`
		At             time.Time             `json:"at"`
		Seq            uint64                `json:"sequence"`
		Version        string                `json:"version"`
		Dispatcher     string                `json:"dispatcher"`
		Ready          bool                  `json:"ready"`
		Sectors        dispatch.SectorCounts `json:"sectors"`
		Phases         []dispatch.PhaseFlow  `json:"phases"`
		Groups         []Group               `json:"groups"`
		Hosts          map[string]int        `json:"hosts"`
		FinishedPerDay float64               `json:"finished_per_day"`
		Alarms         []alarm               `json:"alarms"`
	}{
		Schema, farm.At, farm.Seq, a.Version, a.Dispatcher.Name, a.Dispatcher.Ready() == nil, farm.Sectors, farm.Phases, a.groupsOf(farm, hosts),
		counts, farm.FinishedPerDay, a.alarmsNow(r.Context()),
	}, nil
}
