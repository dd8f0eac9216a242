package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	units "github.com/dustin/go-humanize" //nolint:misspell // its name
	"github.com/spf13/cobra"

	"sealfleet/internal/api"
	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func jobsCommand() *cobra.Command {
	var groups, steps, hosts, states []string
	limit := 0
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List what runs and waits now, the longest in its state first",
		Long: `jobs shows a line for each phase that runs, waits for a host with a free slot, is delayed until
its next attempt, or waits for the chain; what waits is told apart from what runs.`,
		Example: "  dispatcher jobs --state running --host p1-host-3\n  dispatcher jobs --phase p6 --state waiting --limit 20",
		Args:    command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if err := putFilter(q, groups, steps); err != nil {
				return err
			}
			set(q, "host", hosts)
			set(q, "state", states)
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				list, err := pages[dispatch.Job](ctx, c, "/v1/jobs", q, limit)
				if err != nil {
					return err
				}
				now := time.Now()
				return show(cmd, list, []string{"SECTOR", "GROUP", "SIZE", "PHASE", "STATE", "HOST", "ATTEMPT", "FOR", "WHAT"}, func(i item[dispatch.Job]) []string {
					j := i.V
					return []string{j.Sector, j.Group, j.Size, string(j.Phase), j.State, dash(j.Host), fmt.Sprint(j.Attempt), span(now.Sub(j.Since)), dash(short(j.Note))}
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "only these groups")
	cmd.Flags().StringSliceVar(&steps, "phase", nil, "only these phases: p1 to p6, precommit, commit")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "only what these hosts have")
	jobStates := []string{dispatch.NowRunning, dispatch.NowWaiting, dispatch.NowDelayed, "on-chain"}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only these states: "+strings.Join(jobStates, ", "))
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many (default: all)")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(jobStates, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("host", completeHosts)
	return withOutput(cmd)
}

// putFilter checks groups and phases, and puts them into a query.
func putFilter(q url.Values, groups, steps []string) error {
	f, err := filterOf(groups, nil, steps)
	if err != nil {
		return err
	}
	set(q, "group", f.Groups)
	words := []string{}
	for _, s := range f.Phases {
		words = append(words, string(s))
	}
	set(q, "phase", words)
	return nil
}

// slotsText is "p1 3/10, p6 0/2": busy of all.
func slotsText(h *api.Host) string {
	parts := make([]string, len(h.Slots))
	for i, s := range h.Slots {
		parts[i] = fmt.Sprintf("%s %d/%d", s.Phase, s.Busy, s.Slots)
	}
	return strings.Join(parts, ", ")
}

func hostsCommand() *cobra.Command {
	var groups, states []string
	cmd := &cobra.Command{
		Use:   "hosts [HOST]",
		Short: "List the hosts: slots, memory, disks, copies, what their doctor found",
		Long: `hosts shows what each host tells of itself: its slots by phase (busy of all), memory and disk that
are free, how fast it copies, how many things its doctor found, and when it was last heard. With
a HOST it shows all of that one: what runs there, why slots rest, each disk, each finding with
its mend. A host is up, draining, away (it told of itself, and does not any more), or silent (it
works, and tells nothing).`,
		Example:           "  dispatcher hosts\n  dispatcher hosts p1-host-3",
		Args:              command.Args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeHosts,
		RunE: func(cmd *cobra.Command, a []string) error {
			q := url.Values{}
			if err := putFilter(q, groups, nil); err != nil {
				return err
			}
			set(q, "state", states)
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				if len(a) == 1 {
					return showHost(ctx, cmd, c, a[0])
				}
				list, err := pages[api.Host](ctx, c, "/v1/hosts", q, 0)
				if err != nil {
					return err
				}
				header := []string{"HOST", "STATE", "GROUPS", "SLOTS", "CORES", "MEMORY FREE", "DISK FREE", "COPIES", "FOUND", "HEARD"}
				return show(cmd, list, header, func(i item[api.Host]) []string { return hostCells(&i.V) })
			})
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "only these groups")
	hostStates := []string{api.HostUp, api.HostDraining, api.HostAway, api.HostSilent}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only these states: "+strings.Join(hostStates, ", "))
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(hostStates, cobra.ShellCompDirectiveNoFileComp))
	return withOutput(cmd)
}

func hostCells(h *api.Host) []string {
	cells := []string{h.Host, h.State, dash(strings.Join(h.Groups, ",")), dash(slotsText(h)), "-", "-", "-", "-", "-", heard(h.SeenAt)}
	s := h.Status
	if s == nil {
		return cells
	}
	if s.Cores > 0 {
		cells[4] = fmt.Sprint(s.Cores)
	}
	if s.MemoryTotal > 0 {
		cells[5] = ofAll(s.MemoryFree, s.MemoryTotal)
	}
	if len(s.Disks) > 0 {
		cells[6] = ofAll(s.Disks[0].Free, s.Disks[0].Total)
	}
	if s.CopyRate > 0 {
		cells[7] = units.Bytes(uint64(s.CopyRate)) + "/s"
	}
	worst := map[string]int{}
	for _, f := range s.Findings {
		worst[f.Severity]++
	}
	switch {
	case worst["refuse"] > 0:
		cells[8] = fmt.Sprintf("%d refuse, %d warn", worst["refuse"], worst["warn"])
	case worst["warn"] > 0:
		cells[8] = fmt.Sprintf("%d warn", worst["warn"])
	}
	return cells
}

func ofAll(free, total uint64) string { return units.IBytes(free) + " of " + units.IBytes(total) }

func heard(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(time.Since(t)) + " ago"
}

func (c *client) host(ctx context.Context, name string) (item[api.Host], error) {
	var answer struct {
		Item item[api.Host] `json:"item"`
	}
	err := c.get(ctx, "/v1/hosts/"+url.PathEscape(name), nil, &answer)
	return answer.Item, err
}

func showHost(ctx context.Context, cmd *cobra.Command, c *client, name string) error {
	got, err := c.host(ctx, name)
	if err != nil {
		return err
	}
	form, err := outputOf(cmd)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if form != asTable {
		return writeJSON(w, got, form == asJSON)
	}
	h := &got.V
	line(w, "%s  %s  %s  last heard %s", h.Host, h.State, strings.Join(h.Groups, ","), heard(h.SeenAt))
	if d := h.Drain; d != nil {
		line(w, "drained by %s at %s: %s", d.By, stamp(d.At), d.Reason)
	}
	if h.QuietIn != nil {
		line(w, "quiet %s", quiet(h.Running, *h.QuietIn))
	}
	line(w, "slots       %s", dash(slotsText(h)))
	s := h.Status
	if s == nil {
		line(w, "It tells nothing of itself; %d phases run there, by the log.", h.Running)
		return nil
	}
	line(w, "program     %s, since %s", s.Version, stamp(s.Since))
	line(w, "processor   %s, %d cores for phases", dash(s.Model), s.Cores)
	if s.MemoryTotal > 0 {
		line(w, "memory      %s free", ofAll(s.MemoryFree, s.MemoryTotal))
	}
	for _, d := range s.Disks {
		line(w, "disk        %s (%s): %s free, %s promised to what runs", d.Name, d.Path, ofAll(d.Free, d.Total), units.IBytes(d.Reserved))
	}
	line(w, "copies      %s now, at most %s", units.Bytes(uint64(max(s.CopyRate, 0)))+"/s", megabytes(s.CopyLimit))
	for _, j := range s.Jobs {
		note := j.Note
		if j.Fraction > 0 {
			note += fmt.Sprintf(" %.0f%%", 100*j.Fraction)
		}
		line(w, "runs        %s of %s (%s), attempt %d, for %s  %s", j.Phase, j.Sector, j.Group, j.Attempt, span(time.Since(j.Since)), note)
	}
	for _, why := range s.Waiting {
		line(w, "rests       %s", why)
	}
	for _, f := range s.Findings {
		line(w, "found       %s %s: %s: %s", f.Severity, f.Code, f.Subject, f.Evidence)
		if f.Mend != "" {
			line(w, "              mend: %s", f.Mend)
		}
	}
	return nil
}

// quiet says when nothing runs any more on a host.
func quiet(running int, in float64) string {
	switch {
	case running == 0:
		return "now: nothing runs"
	case in < 0:
		return fmt.Sprintf("after %d phases, which have not said yet how far they are", running)
	}
	return fmt.Sprintf("in about %s, when %d phases have ended", seconds(in), running)
}

func groupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "List the groups: sectors, hosts, what runs and waits from p1 to p6",
		Long: `groups shows each group on a line. P1 to P6 are running+waiting; a phase with ! has what is parked.
PAUSED names what an operator stopped.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				var answer struct {
					Items []item[api.Group] `json:"items"`
				}
				if err := c.get(ctx, "/v1/groups", nil, &answer); err != nil {
					return err
				}
				header := []string{"GROUP", "HOSTS", "SEALING", "PARKED", "HELD", "FINISHED", "FAILED", "OLDEST WAIT"}
				for _, p := range phases.Phases() {
					header = append(header, strings.ToUpper(string(p)))
				}
				return show(cmd, answer.Items, append(header, "PAUSED"), groupCells)
			})
		},
	}
	return withOutput(cmd)
}

func groupCells(i item[api.Group]) []string {
	g := &i.V
	hosts := fmt.Sprint(g.Hosts)
	if g.HostsAway > 0 {
		hosts += fmt.Sprintf(" (%d away)", g.HostsAway)
	}
	n := g.Sectors
	cells := []string{g.Group, hosts, fmt.Sprint(n.Sealing), fmt.Sprint(n.Parked), fmt.Sprint(g.Held), fmt.Sprint(n.Finished), fmt.Sprint(n.Failed), age(g.Oldest)}
	for _, f := range g.Phases {
		if !f.Phase.IsPhase() {
			continue
		}
		text := fmt.Sprintf("%d+%d", f.Running, f.Waiting+f.Delayed)
		if f.Parked > 0 {
			text += fmt.Sprintf(" !%d", f.Parked)
		}
		cells = append(cells, text)
	}
	var paused []string
	for _, p := range g.Paused {
		_, what, _ := strings.Cut(p.Name(), ".")
		paused = append(paused, fmt.Sprintf("%s by %s: %s", what, p.By, p.Reason))
	}
	return append(cells, dash(short(strings.Join(paused, "; "))))
}

func statsCommand() *cobra.Command {
	var steps []string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how long phases take, by size and model of host, and sectors per day",
		Long: `stats shows P50 and P95 of the attempts that succeeded, of each host the last 256, by phase, sector
size and the processor's model; and the sectors that ended on each of the last days (UTC).`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if err := putFilter(q, nil, steps); err != nil {
				return err
			}
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				var answer item[struct {
					Phases []dispatch.PhaseStats `json:"phases"`
					Days   []dispatch.Day        `json:"days"`
				}]
				if err := c.get(ctx, "/v1/stats", q, &answer); err != nil {
					return err
				}
				if form, _ := outputOf(cmd); form != asTable {
					return writeJSON(cmd.OutOrStdout(), answer, form == asJSON)
				}
				if err := show(cmd, answer.V.Phases, []string{"PHASE", "SIZE", "MODEL", "HOSTS", "ATTEMPTS", "P50", "P95"}, func(s dispatch.PhaseStats) []string {
					return []string{string(s.Phase), s.Size, dash(s.Model), fmt.Sprint(s.Hosts), fmt.Sprint(s.Count), seconds(s.P50), seconds(s.P95)}
				}); err != nil {
					return err
				}
				line(cmd.OutOrStdout(), "")
				return show(cmd, answer.V.Days, []string{"DAY", "FINISHED", "FAILED", "CANCELLED"}, func(d dispatch.Day) []string {
					return []string{d.Day, fmt.Sprint(d.Finished), fmt.Sprint(d.Failed), fmt.Sprint(d.Cancelled)}
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&steps, "phase", nil, "only these phases")
	return withOutput(cmd)
}

// completeHosts completes a host's name, if a dispatcher answers at once.
func completeHosts(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var cfg verbConfig
	if load(&cfg, &cfg.Bus) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := newClient(cmd, cfg)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := pages[api.Host](ctx, c, "/v1/hosts", url.Values{}, 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{}
	for _, h := range list {
		names = append(names, h.V.Host+"\t"+h.V.State)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
