package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sealfleet/internal/phases"
	"sealfleet/internal/trace"

	"github.com/nats-io/nats.go"
)

// PublishTask publishes a task; if its subject has a message already, that is success.
//
// A task with NotBefore in the future is published at once; whoever fetches it before its
// time hands it back with the delay that is left, which the server keeps over restarts.
// (Scheduled publishing would be one delivery less, but the server doesn't allow it
// together with refusing duplicates.)
func (b *Bus) PublishTask(ctx context.Context, t phases.Task) error {
	if err := checkTokens(t.Group, t.Sector, t.Step, "-"); err != nil {
		return err
	}
	if t.Issue < 1 || t.IssuedID == "" || t.V == 0 {
		return fmt.Errorf("task %s of %s has no issue or version", t.Step, t.Sector)
	}
	data, err := t.AppendJSON(make([]byte, 0, 1024))
	if err != nil {
		return err
	}
	if len(data) > maxEvent {
		return fmt.Errorf("task %s of %s has %d bytes, at most %d are allowed", t.Step, t.Sector, len(data), maxEvent)
	}
	m := &nats.Msg{Subject: TaskSubject(t.Group, t.Step, t.Sector, t.Issue), Data: data}
	if parent := b.cfg.Tracer.OfTask(t); parent != "" {
		m.Header = nats.Header{trace.Header: []string{parent}}
	}
	return b.publishOnce(ctx, m)
}

// publishOnce writes a message to a stream that keeps one per subject, trying until ctx
// ends; if there is one already, that is success.
func (b *Bus) publishOnce(ctx context.Context, m *nats.Msg) error {
	for try := 0; ; try++ {
		if err := b.Stopped(); err != nil {
			return err
		}
		_, err := b.publish(ctx, m)
		var refusal *apiError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refusal) && refusal.ErrCode == codeStoreFailed && strings.Contains(refusal.Description, "per subject"):
			return nil
		case final(err):
			return fmt.Errorf("%s: %w", m.Subject, err)
		}
		if !pause(ctx, try) {
			return fmt.Errorf("%s may or may not be published: %w", m.Subject, unreachable(err))
		}
	}
}

// TaskExists tells whether a task's message is in the stream: waiting, held
// back until its time, or in a host's hands.
func (b *Bus) TaskExists(ctx context.Context, group string, step phases.Step, sector string, issue int) (bool, error) {
	m, err := b.get(ctx, TasksStream, getRequest{LastBySubj: TaskSubject(group, step, sector, issue)})
	return m != nil, err
}

// RemoveTask takes a task's message out of the stream. That it is gone already is success.
func (b *Bus) RemoveTask(ctx context.Context, k TaskKey) error {
	m, err := b.get(ctx, TasksStream, getRequest{LastBySubj: TaskSubject(k.Group, k.Step, k.Sector, k.Issue)})
	if m == nil || err != nil {
		return err
	}
	return b.deleteMessage(ctx, TasksStream, m.Seq)
}

// Queue tells how many tasks of a group's phase were never given to anybody, and how many
// requests of hosts with a free slot wait for one.
func (b *Bus) Queue(ctx context.Context, group string, step phases.Step) (left uint64, asking int, err error) {
	c, err := b.js.Consumer(ctx, TasksStream, Durable(group, step))
	if err != nil {
		return 0, 0, unreachable(err)
	}
	info := c.CachedInfo() // of a moment ago
	return info.NumPending, info.NumWaiting, nil
}

// Tasks lists all tasks whose message is in the stream; a sweeper compares them with the
// issues that are open. What is there but is no task comes in strangers, by its subject.
func (b *Bus) Tasks(ctx context.Context) (tasks map[TaskKey]bool, strangers []string, err error) {
	tasks = map[TaskKey]bool{}
	for offset := 0; ; {
		var info streamInfo
		in := struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset,omitempty"`
		}{">", offset}
		if err := b.api(ctx, "$JS.API.STREAM.INFO."+TasksStream, in, &info); err != nil {
			if isCode(err, codeNoStream) {
				err = fmt.Errorf("%s: %w", TasksStream, ErrNoStream)
			}
			return nil, nil, err
		}
		for subject := range info.State.Subjects {
			k, err := parseTaskSubject(subject)
			if err != nil {
				strangers = append(strangers, subject)
				continue
			}
			tasks[k] = true
		}
		if offset += len(info.State.Subjects); len(info.State.Subjects) == 0 || offset >= info.Total {
			return tasks, strangers, nil
		}
	}
}
