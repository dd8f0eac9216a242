package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go/jetstream"
)

// What a plan says of a stream or consumer.
const (
	ActionCreate  = "create"
	ActionUpdate  = "update"
	ActionNone    = "none"
	ActionForeign = "foreign" // it has our name but not our mark: left alone
)

// Change is one line of a plan.
type Change struct {
	Kind   string `json:"kind"`   // stream or consumer
	Name   string `json:"name"`   // SEAL_TASKS, or SEAL_TASKS/group1-p1
	Action string `json:"action"` // create, update, none or foreign
	Detail string `json:"detail,omitempty"`
}

// Plan shows what Apply would make or change for these groups.
func (b *Bus) Plan(ctx context.Context, groups []string) ([]Change, error) {
	return b.converge(ctx, groups, false)
}

// Apply makes the streams and consumers, or changes those that sealfleet made, and
// returns what it did. What it did not make it leaves alone, and says so with
// *ForeignError after having done the rest.
func (b *Bus) Apply(ctx context.Context, groups []string) ([]Change, error) {
	changes, err := b.converge(ctx, groups, true)
	if err != nil {
		return changes, err
	}
	if err := b.checkLog(ctx); err != nil {
		return changes, err
	}
	var foreign []string
	for _, c := range changes {
		if c.Action == ActionForeign {
			foreign = append(foreign, c.Kind+" "+c.Name)
		}
	}
	if foreign != nil {
		return changes, &ForeignError{foreign}
	}
	return changes, nil
}

// ForeignError names streams or consumers that have our names, but were not made by us.
type ForeignError struct{ Names []string }

func (f *ForeignError) Error() string {
	return fmt.Sprintf("not made by sealfleet and therefore left alone: %s; if nobody else needs them, remove them with the nats CLI (nats stream rm, nats consumer rm) and apply again, else use an account of its own for sealfleet",
		strings.Join(f.Names, ", "))
}

func (b *Bus) converge(ctx context.Context, groups []string, apply bool) ([]Change, error) {
	for _, g := range groups {
		if p, err := phases.ParseGroup(g); err != nil || p != g {
			return nil, fmt.Errorf("group %q: use a name such as group1", g)
		}
	}
	var changes []Change
	missing := map[string]bool{} // streams that are not there or not ours
	for _, want := range b.cfg.streams() {
		c, err := b.convergeStream(ctx, want, apply)
		if err != nil {
			return changes, fmt.Errorf("stream %s: %w", want.Name, err)
		}
		missing[want.Name] = c.Action == ActionForeign || c.Action == ActionCreate && !apply
		changes = append(changes, c)
	}
	for _, want := range b.cfg.consumers(groups) {
		c := Change{Kind: "consumer", Name: want.stream + "/" + want.Durable, Action: ActionCreate}
		if !missing[want.stream] {
			var err error
			if c, err = b.convergeConsumer(ctx, want, c, apply); err != nil {
				return changes, fmt.Errorf("consumer %s: %w", c.Name, err)
			}
		} else if apply {
			c.Action, c.Detail = ActionForeign, "its stream is not ours"
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func (b *Bus) convergeStream(ctx context.Context, want jetstream.StreamConfig, apply bool) (Change, error) {
	c := Change{Kind: "stream", Name: want.Name, Action: ActionNone}
	is, err := b.js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		c.Action, c.Detail = ActionCreate, strings.Join(want.Subjects, ", ")
		if !apply {
			return c, nil
		}
		_, err = b.js.CreateStream(ctx, want)
		return c, explainStream(err)
	case err != nil:
		return c, unreachable(err)
	}
	have := is.CachedInfo().Config
	if have.Metadata[ManagedKey] == "" {
		c.Action, c.Detail = ActionForeign, "left alone: it lacks the metadata "+ManagedKey
		return c, nil
	}
	changed, diff := streamDiff(have, want)
	if len(diff) == 0 {
		return c, nil
	}
	c.Action, c.Detail = ActionUpdate, strings.Join(diff, ", ")
	if apply {
		_, err = b.js.UpdateStream(ctx, changed)
	}
	return c, explainStream(err)
}

func explainStream(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamNameInUse {
		return fmt.Errorf("%w; somebody made it just now: plan again", err)
	}
	const subjectsOverlap = 10065
	if errors.As(err, &api) && api.ErrorCode == subjectsOverlap {
		return fmt.Errorf("%w: another stream of this account takes subjects under ev., seal. or archive.; use an account of its own for sealfleet", err)
	}
	return err
}

// streamDiff names what is to be changed, and gives the stream as it is with just that
// changed: what an operator set beside (placement, compression, limits) stays.
func streamDiff(have, want jetstream.StreamConfig) (jetstream.StreamConfig, []string) {
	var diff []string
	note := func(what string, from, to any) { diff = append(diff, fmt.Sprintf("%s: %v to %v", what, from, to)) }
	to := have
	if want.MaxMsgsPerSubject == 0 {
		want.MaxMsgsPerSubject = have.MaxMsgsPerSubject // the server says -1 for none; a limit is the operator's
	}
	if to.Description != want.Description {
		note("description", "other", "ours")
		to.Description = want.Description
	}
	if !slices.Equal(to.Subjects, want.Subjects) {
		note("subjects", to.Subjects, want.Subjects)
		to.Subjects = want.Subjects
	}
	if to.Replicas != want.Replicas {
		note("replicas", to.Replicas, want.Replicas)
		to.Replicas = want.Replicas
	}
	if to.MaxConsumers != want.MaxConsumers {
		note("max consumers", to.MaxConsumers, want.MaxConsumers)
		to.MaxConsumers = want.MaxConsumers
	}
	if to.Discard != want.Discard || to.DiscardNewPerSubject != want.DiscardNewPerSubject || to.MaxMsgsPerSubject != want.MaxMsgsPerSubject {
		note("discard", to.Discard, want.Discard)
		to.Discard, to.DiscardNewPerSubject, to.MaxMsgsPerSubject = want.Discard, want.DiscardNewPerSubject, want.MaxMsgsPerSubject
	}
	if to.Retention != want.Retention {
		note("retention", to.Retention, want.Retention)
		to.Retention = want.Retention
	}
	if want.DenyDelete && !to.DenyDelete || want.DenyPurge && !to.DenyPurge {
		note("deny delete and purge", to.DenyDelete && to.DenyPurge, true)
		to.DenyDelete, to.DenyPurge = want.DenyDelete, want.DenyPurge
	}
	if want.AllowDirect && !to.AllowDirect {
		note("direct reads", "missing", "allowed")
		to.AllowDirect = true
	}
	if meta, ok := mergeMetadata(have.Metadata, want.Metadata); !ok {
		note("metadata", "older", "ours")
		to.Metadata = meta
	}
	return to, diff
}

// mergeMetadata adds ours to what is there, and tells whether all of it was there. An
// operator's own thresholds stay.
func mergeMetadata(have, want map[string]string) (map[string]string, bool) {
	merged := maps.Clone(have)
	complete := true
	for k, v := range want {
		if _, there := merged[k]; !there || k == ManagedKey && merged[k] != v {
			merged[k], complete = v, false
		}
	}
	return merged, complete
}

func (b *Bus) convergeConsumer(ctx context.Context, want consumerOf, c Change, apply bool) (Change, error) {
	is, err := b.js.Consumer(ctx, want.stream, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		c.Detail = want.FilterSubject
		if !apply {
			return c, nil
		}
		_, err = b.js.CreateConsumer(ctx, want.stream, want.ConsumerConfig)
		return c, err
	case err != nil:
		return c, unreachable(err)
	}
	have := is.CachedInfo().Config
	c.Action = ActionNone
	if have.Metadata[ManagedKey] == "" {
		c.Action, c.Detail = ActionForeign, "left alone: it lacks the metadata "+ManagedKey
		return c, nil
	}
	changed, diff := consumerDiff(have, want.ConsumerConfig)
	if len(diff) == 0 {
		return c, nil
	}
	c.Action, c.Detail = ActionUpdate, strings.Join(diff, ", ")
	if apply {
		_, err = b.js.UpdateConsumer(ctx, want.stream, changed)
	}
	return c, err
}

func consumerDiff(have, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, []string) {
	var diff []string
	to := have
	note := func(what string, from, to any) { diff = append(diff, fmt.Sprintf("%s: %v to %v", what, from, to)) }
	if to.Description != want.Description {
		note("description", "other", "ours")
		to.Description = want.Description
	}
	if to.AckWait != want.AckWait {
		note("ack wait", to.AckWait, want.AckWait)
		to.AckWait = want.AckWait
	}
	if to.MaxDeliver != want.MaxDeliver {
		note("max deliver", to.MaxDeliver, want.MaxDeliver)
		to.MaxDeliver = want.MaxDeliver
	}
	if to.MaxAckPending != want.MaxAckPending {
		note("max ack pending", to.MaxAckPending, want.MaxAckPending)
		to.MaxAckPending = want.MaxAckPending
	}
	if to.FilterSubject != want.FilterSubject {
		note("filter", to.FilterSubject, want.FilterSubject)
		to.FilterSubject = want.FilterSubject
	}
	if meta, ok := mergeMetadata(have.Metadata, want.Metadata); !ok {
		note("metadata", "older", "ours")
		to.Metadata = meta
	}
	return to, diff
}
