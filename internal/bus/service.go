package bus

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go/micro"

	"sealfleet/internal/version"
)

// The services that `nats micro list` shows.
const (
	DispatcherService = "sealfleet-dispatcher"
	ConsumerService   = "sealfleet-consumer"
)

// Service is how a program shows itself on the bus: it answers $SRV.PING, INFO and STATS,
// and its status on StatusSubject.
type Service struct {
	Kind        string // DispatcherService or ConsumerService
	Name        string // of this one: a host's or a dispatcher's
	Description string
	Metadata    map[string]string
	Status      func() any // what `nats micro stats` and a request for the status show; it must be quick
}

// StatusSubject is where a program is asked for its status: `nats req
// srv.sealfleet-consumer.p1-host-3 ""`.
func StatusSubject(kind, name string) string { return "srv." + kind + "." + name }

// Serve answers until stop is called. A server that does not let this user listen there
// logs that; nothing else depends on it.
func (b *Bus) Serve(s Service) (stop func(), err error) {
	if !isToken(s.Name) {
		return nil, fmt.Errorf("service %s of %q: use letters, digits, - and _", s.Kind, s.Name)
	}
	meta := map[string]string{"name": s.Name}
	for k, v := range s.Metadata {
		if v != "" {
			meta[k] = v
		}
	}
	svc, err := micro.AddService(b.nc, micro.Config{
		Name: s.Kind, Version: semantic(version.String()), Description: s.Description, Metadata: meta,
		// Every one is asked for itself, never one for all.
		QueueGroupDisabled: true,
		StatsHandler:       func(*micro.Endpoint) any { return s.Status() },
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			b.log.Debug("this program does not show on the bus", "subject", err.Subject, "error", err.Description)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("show this program on the bus: %w", unreachable(err))
	}
	err = svc.AddEndpoint("status", micro.HandlerFunc(func(r micro.Request) {
		data, err := json.Marshal(s.Status())
		if err != nil {
			_ = r.Error("500", err.Error(), nil) // who asked has gone
			return
		}
		_ = r.Respond(data) // who asked has gone
	}), micro.WithEndpointSubject(StatusSubject(s.Kind, s.Name)))
	if err != nil {
		_ = svc.Stop() // it was not complete
		return nil, fmt.Errorf("show this program on the bus: %w", unreachable(err))
	}
	return func() { _ = svc.Stop() }, nil // at the end of the connection it goes anyway
}

var (
	semanticRE = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?$`)
	buildRE    = regexp.MustCompile(`[^0-9A-Za-z-]+`)
)

// semantic makes a version such as the services want of this program's: v0.1.0-3-gabc is
// 0.1.0-3-gabc, and a commit or dev is 0.0.0+commit.
func semantic(v string) string {
	if v := strings.TrimPrefix(v, "v"); semanticRE.MatchString(v) {
		return v
	}
	return "0.0.0+" + buildRE.ReplaceAllString(v, "-")
}
