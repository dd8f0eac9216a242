package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sealfleet/internal/version"
)

// Payload is what a webhook gets: Alertmanager's, version 4.
type Payload struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []PayloadAlert    `json:"alerts"`
}

// PayloadAlert is one alarm in it.
type PayloadAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

func payloadOf(list []*Alert) Payload {
	p := Payload{
		Version: "4", GroupKey: "{}:{}", Status: Resolved, Receiver: "sealfleet", GroupLabels: map[string]string{},
		CommonLabels: maps.Clone(list[0].Labels), CommonAnnotations: maps.Clone(list[0].Annotations),
	}
	for _, a := range list {
		h := fnv.New64a()
		_, _ = h.Write([]byte(keyOf(a.Labels))) // never fails
		p.Alerts = append(p.Alerts, PayloadAlert{
			Status: a.State, Labels: a.Labels, Annotations: a.Annotations, StartsAt: a.StartsAt, EndsAt: a.EndsAt, Fingerprint: fmt.Sprintf("%016x", h.Sum64()),
		})
		if a.State == Firing {
			p.Status = Firing
		}
		common(p.CommonLabels, a.Labels)
		common(p.CommonAnnotations, a.Annotations)
	}
	return p
}

// common removes from m what is not so in other.
func common(m, other map[string]string) {
	maps.DeleteFunc(m, func(k, v string) bool { return other[k] != v })
}

// poster posts to a webhook.
type poster struct {
	cfg    *Config
	client *http.Client
	toAM   bool
}

// amRepeat is how soon an Alertmanager is told again: what it does not hear of for five
// minutes it takes for over.
const amRepeat = time.Minute

func newPoster(c *Config) *poster {
	if c.Webhook == "" {
		return nil
	}
	u, err := url.Parse(c.Webhook)
	return &poster{
		cfg: c, toAM: err == nil && strings.HasSuffix(u.Path, "/api/v2/alerts"),
		client: &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// repeat is how soon what stands is told again.
func (p *poster) repeat(c *Config) time.Duration {
	if p != nil && p.toAM {
		return min(amRepeat, c.Repeat)
	}
	return c.Repeat
}

// post tells a webhook; any 2xx says that it was heard.
func (p *poster) post(ctx context.Context, list []*Alert, now time.Time) error {
	if p == nil || len(list) == 0 {
		return nil
	}
	var body any = payloadOf(list)
	if p.toAM {
		alerts := payloadOf(list).Alerts
		for i := range alerts {
			if alerts[i].Status == Firing { // if nobody says so again it is over
				alerts[i].EndsAt = now.Add(5 * amRepeat)
			}
		}
		body = alerts
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.Webhook, bytes.NewReader(data))
	if err != nil {
		return errors.New("ALERT_WEBHOOK cannot be asked") // the error would show the URL
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sealfleet/"+version.String())
	if p.cfg.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.cfg.token)
	}
	res, err := p.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a secret
		}
		return fmt.Errorf("ALERT_WEBHOOK: %w", err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 300)) // for the message only
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("ALERT_WEBHOOK answers %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
