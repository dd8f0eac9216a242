package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/settings"
)

// Verbs about the farm as it is now (what runs where, what hosts tell) ask a dispatcher by
// its HTTP API: it knows that already, with its own settings, where the log would have to be
// read from its beginning. Verbs that write to a sector's chain, or read one sector, go to
// the bus, and so work while no dispatcher runs.

// farmConfig says where a dispatcher is asked.
type farmConfig struct {
	URL       string `env:"DISPATCHER_URL" desc:"where verbs ask a dispatcher's HTTP API; empty: the dispatcher of STATE_DIR, or http://127.0.0.1:9470" example:"https://d1.example:9470"`
	CA        string `env:"DISPATCHER_CA" desc:"certificates that vouch for that dispatcher, a PEM file; empty: those of the system" example:"/etc/sealfleet/ca.crt"`
	TokenFile string `env:"HTTP_TOKEN_FILE" desc:"file with the bearer token of the dispatcher's HTTP API" example:"/etc/sealfleet/http.token"`
}

const usualURL = "http://127.0.0.1:9470"

func (c *farmConfig) validate() error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("needs http:// or https:// and a host")
	}
	if err != nil {
		return &settings.Fault{Name: "DISPATCHER_URL", Value: c.URL, Example: "https://d1.example:9470", Err: err}
	}
	return nil
}

// frontFile is where serve leaves how it is asked, in STATE_DIR, for the verbs of the same
// user on the same machine.
const frontFile = "http.json"

type frontDoor struct {
	URL       string `json:"url"`
	CA        string `json:"ca,omitempty"`
	TokenFile string `json:"token_file,omitempty"`
}

// leaveFront writes frontFile, or removes an old one if nobody is asked by HTTP.
func leaveFront(stateDir string, f frontDoor) error {
	path := filepath.Join(stateDir, frontFile)
	if f.URL == "" {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	for _, name := range []*string{&f.CA, &f.TokenFile} {
		if *name != "" {
			whole, err := filepath.Abs(*name)
			if err != nil {
				return err
			}
			*name = whole
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}

// door fills in what is not set from what a dispatcher left.
func (c farmConfig) door(stateDir string) frontDoor {
	d := frontDoor(c)
	if d.URL != "" {
		return d
	}
	var left frontDoor
	if data, err := os.ReadFile(filepath.Join(stateDir, frontFile)); err == nil && json.Unmarshal(data, &left) == nil && left.URL != "" {
		if d.CA != "" {
			left.CA = d.CA
		}
		if d.TokenFile != "" {
			left.TokenFile = d.TokenFile
		}
		return left
	}
	d.URL = usualURL
	return d
}

// errNoDispatcher says that no dispatcher could be asked.
var errNoDispatcher = errors.New("no dispatcher answers")

// refusal is the API's answer to what it does not do.
type refusal struct {
	Status  int
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Mend    string   `json:"mend"`
	Near    []string `json:"near"`
}

func (r *refusal) Error() string {
	text := r.Message
	if len(r.Near) > 0 {
		text += "; did you mean " + strings.Join(r.Near, ", ") + "?"
	}
	if r.Mend != "" {
		text += " (" + r.Mend + ")"
	}
	return text
}

func (r *refusal) exit() int {
	switch r.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return exitUsage
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict:
		return exitConflict
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return exitUnreachable
	}
	return exitFailure
}

// client asks a dispatcher.
type client struct {
	door     frontDoor
	token    string
	http     *http.Client
	who      string
	patience time.Duration // for a dispatcher that is just starting
}

// runFarm makes a client and runs f.
func runFarm(cmd *cobra.Command, f func(ctx context.Context, c *client) error) error {
	if _, err := outputOf(cmd); cmd.Flags().Lookup("output") != nil && err != nil {
		return err
	}
	var cfg verbConfig
	if err := load(&cfg, &cfg.Bus); err != nil {
		return err
	}
	c, err := newClient(cmd, cfg)
	if err != nil {
		return err
	}
	return f(cmd.Context(), c)
}

func newClient(cmd *cobra.Command, cfg verbConfig) (*client, error) {
	c := &client{door: cfg.Farm.door(cfg.Bus.StateDir), who: whoami()}
	var err error
	if c.patience, err = cmd.Flags().GetDuration("timeout"); err != nil {
		return nil, err
	}
	if c.door.TokenFile != "" {
		text, err := os.ReadFile(c.door.TokenFile)
		if err != nil {
			return nil, command.Usagef("HTTP_TOKEN_FILE=%q: %w", c.door.TokenFile, err)
		}
		c.token = strings.TrimSpace(string(text))
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if c.door.CA != "" {
		text, err := os.ReadFile(c.door.CA)
		if err != nil {
			return nil, command.Usagef("DISPATCHER_CA=%q: %w", c.door.CA, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, command.Usagef("DISPATCHER_CA=%q has no certificate in PEM form", c.door.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return c, nil
}

// get reads an answer into v.
func (c *client) get(ctx context.Context, path string, q url.Values, v any) error {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.ask(ctx, http.MethodGet, path, nil, v)
}

// post asks for something to be done. It is sent again if no answer came: the key makes
// that harmless.
func (c *client) post(ctx context.Context, path string, body map[string]any, v any) error {
	return c.act(ctx, http.MethodPost, path, body, v)
}

func (c *client) act(ctx context.Context, method, path string, body map[string]any, v any) error {
	body["by"] = c.who
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.ask(ctx, method, path, data, v)
}

// ask sends a request until it is answered, or the verb's patience is over.
func (c *client) ask(ctx context.Context, method, path string, body []byte, v any) error {
	key, until := ulid.Make().String(), time.Now().Add(c.patience)
	const between = 200 * time.Millisecond
	for {
		err := c.askOnce(ctx, method, path, key, body, v)
		var r *refusal
		again := errors.Is(err, errNoDispatcher) || errors.As(err, &r) && r.Code == "starting"
		if !again || time.Now().Add(between).After(until) {
			return err
		}
		select {
		case <-time.After(between):
		case <-ctx.Done():
			return err
		}
	}
}

func (c *client) askOnce(ctx context.Context, method, path, key string, body []byte, v any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.door.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if method != http.MethodGet {
		r.Header.Set("Idempotency-Key", key)
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w (mend: start one, or set DISPATCHER_URL to where one listens: its HTTP_LISTEN)", errNoDispatcher, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoDispatcher, err)
	}
	if res.StatusCode != http.StatusOK {
		var said struct {
			Error *refusal `json:"error"`
		}
		if json.Unmarshal(data, &said) != nil || said.Error == nil {
			return fmt.Errorf("%s answers %s, and not as a dispatcher does (mend: set DISPATCHER_URL)", c.door.URL, res.Status)
		}
		said.Error.Status = res.StatusCode
		return said.Error
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s answers what cannot be read: %w", c.door.URL, err)
	}
	return nil
}

// item is an item of a list: V for tables; JSON is what the dispatcher sent, so that fields
// of later releases are passed on.
type item[T any] struct {
	V   T
	raw json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *item[T]) UnmarshalJSON(data []byte) error {
	i.raw = bytes.Clone(data)
	return json.Unmarshal(data, &i.V)
}

// MarshalJSON implements json.Marshaler.
func (i item[T]) MarshalJSON() ([]byte, error) { return i.raw, nil }

// pages reads a list, page after page; most is the number of items wanted, 0 for all.
func pages[T any](ctx context.Context, c *client, path string, q url.Values, most int) ([]item[T], error) {
	const atOnce = 1000
	all := []item[T]{}
	for {
		limit := atOnce
		if most > 0 {
			limit = min(atOnce, most-len(all))
		}
		q.Set("limit", strconv.Itoa(limit))
		var page struct {
			Next  string    `json:"next"`
			Items []item[T] `json:"items"`
		}
		if err := c.get(ctx, path, q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" || most > 0 && len(all) >= most {
			return all, nil
		}
		q.Set("cursor", page.Next)
	}
}

// set puts a flag's list into a query.
func set(q url.Values, name string, values []string) {
	if len(values) > 0 {
		q.Set(name, strings.Join(values, ","))
	}
}
