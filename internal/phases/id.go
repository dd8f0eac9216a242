package phases

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// SectorID is a sector's name everywhere: in subjects, paths and on the screen. It is
// lotus's directory name, such as s-t01000-7 for sector 7 of miner f01000.
func SectorID(miner, number uint64) string { return fmt.Sprintf("s-t0%d-%d", miner, number) }

// ParseSectorID reads what SectorID wrote, and nothing else: one sector has one name.
func ParseSectorID(id string) (miner, number uint64, err error) {
	rest, ok := strings.CutPrefix(id, "s-t0")
	m, n, dash := strings.Cut(rest, "-")
	if ok && dash {
		var e1, e2 error
		miner, e1 = strconv.ParseUint(m, 10, 64)
		number, e2 = strconv.ParseUint(n, 10, 64)
		if e1 == nil && e2 == nil && SectorID(miner, number) == id {
			return miner, number, nil
		}
	}
	return 0, 0, fmt.Errorf("%q is not a sector: write it as s-t0<miner>-<number>, such as s-t01000-7", id)
}

// ErrNoSector says that a text has no form in which people write sectors.
var ErrNoSector = errors.New("no sector")

var sectorForms = regexp.MustCompile(`^(?:s-)?[ft]?0?([0-9]+)[-/]([0-9]+)$`)

// ParseSector reads a sector as people write it (s-t01000-7, 1000/7, f01000-7 and the like)
// and returns its SectorID. The error is ErrNoSector, or says why the numbers cannot be.
func ParseSector(text string) (string, error) {
	if _, _, err := ParseSectorID(text); err == nil {
		return text, nil
	}
	m := sectorForms.FindStringSubmatch(text)
	if m == nil {
		return "", ErrNoSector
	}
	miner, err1 := strconv.ParseUint(m[1], 10, 64)
	number, err2 := strconv.ParseUint(m[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	return SectorID(miner, number), nil
}

// dispatcherToken is the actor that dispatchers are in subjects. One token for all of
// them, because a permission can deny hosts one token but no pattern of tokens.
const dispatcherToken = "dispatcher"

// DispatcherName makes the Host of a dispatcher's (or an operator's verb's) events from
// its own short name: "a" gives dispatcher-a. Only such actors may write submitted,
// issued, cancelled, redo and finished, and pass the gates; hosts may not be called so.
func DispatcherName(name string) string {
	if name == "" {
		return dispatcherToken
	}
	return dispatcherToken + "-" + HostName(name)
}

// IsDispatcher tells whether an event's Host is a dispatcher or an operator's verb.
func IsDispatcher(host string) bool {
	return host == dispatcherToken || strings.HasPrefix(host, dispatcherToken+"-")
}

// Actor is the last token of an event's subject: the host's name, or "dispatcher".
func Actor(host string) string {
	if IsDispatcher(host) {
		return dispatcherToken
	}
	return host
}

var notHostName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// HostName makes a host name usable as a subject token: dots and other strange
// characters become dashes, and it is cut at 64 bytes.
func HostName(name string) string {
	name = notHostName.ReplaceAllString(name, "-")
	if len(name) > 64 {
		name = name[:64]
	}
	return name
}

var groupForm = regexp.MustCompile(`^[a-z0-9_-]{1,22}$`)

// ParseGroup reads a group's name. A bare number is the old system's group_id: 1 is
// group1. Names are up to 22 characters, so that a durable's (<group>-<phase>) stays
// readable in the nats CLI's tables.
func ParseGroup(text string) (string, error) {
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		text = "group" + text
	}
	if !groupForm.MatchString(text) {
		return "", fmt.Errorf("group %q: use 1 to 22 of a-z, 0-9, - and _ (or the old system's number: 1 is group1)", text)
	}
	return text, nil
}
