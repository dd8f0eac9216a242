package bus

import (
	"fmt"
	"strconv"
	"strings"

	"sealfleet/internal/phases"
)

// The streams.
const (
	EventsStream  = "SEAL_EVENTS"
	TasksStream   = "SEAL_TASKS"
	ArchiveStream = "SEAL_ARCHIVE"
	AsideStream   = "SEAL_ASIDE"
)

// The subjects of the streams.
const (
	eventSubjects   = "ev.>"
	taskSubjects    = "seal.>"
	archiveSubjects = "archive.>"
	asideSubjects   = asidePrefix + ">"
	asidePrefix     = "aside."
)

// DispatcherDurable is the durable consumer on SEAL_EVENTS that all dispatchers share.
const DispatcherDurable = "dispatcher"

// ManagedKey marks, in a stream's or consumer's metadata, what sealfleet made.
const (
	ManagedKey   = "sealfleet.managed"
	ManagedValue = "v1"
)

// Durable is the name of the durable consumer on SEAL_TASKS that serves one phase of one
// group, shared by all its hosts.
func Durable(group string, step phases.Step) string { return group + "-" + string(step) }

// TaskSubject is where a task is published: seal.<group>.<phase>.<sector>.<issue>. The
// issue is part of it, so that a retry never meets the message of the attempt before.
func TaskSubject(group string, step phases.Step, sector string, issue int) string {
	return "seal." + group + "." + string(step) + "." + sector + "." + strconv.Itoa(issue)
}

// taskFilter is what the durable of one phase of one group takes.
func taskFilter(group string, step phases.Step) string {
	return "seal." + group + "." + string(step) + ".>"
}

// EventSubject is where an event is published: ev.<group>.<sector>.<step>.<actor>.
func EventSubject(e phases.Event) string {
	return "ev." + e.Group + "." + e.Sector + "." + string(e.Step) + "." + phases.Actor(e.Host)
}

// chainFilter takes all events of one chain: those of one step of one sector.
func chainFilter(group, sector string, step phases.Step) string {
	return "ev." + group + "." + sector + "." + string(step) + ".*"
}

// anyGroupFilter takes a sector's submission in whatever group.
func anyGroupFilter(sector string) string {
	return "ev.*." + sector + "." + string(phases.SectorEnd) + ".*"
}

// sectorFilter takes all events of one sector.
func sectorFilter(sector string) string { return "ev.*." + sector + ".>" }

// archiveSubject is where a sector's tombstone lies.
func archiveSubject(sector string) string { return "archive." + sector }

// parseEventSubject reads the tokens of an event's subject.
func parseEventSubject(subject string) (group, sector string, step phases.Step, actor string, err error) {
	t := strings.Split(subject, ".")
	if len(t) != 5 || t[0] != "ev" {
		return "", "", "", "", fmt.Errorf("subject %q is not ev.<group>.<sector>.<step>.<actor>", subject)
	}
	return t[1], t[2], phases.Step(t[3]), t[4], nil
}
