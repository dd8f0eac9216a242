package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// Demo seals one real 2 KiB sector with a real piece on a fleet of one dispatcher and one
// consumer, and shows how it goes.
type Demo struct {
	Out   io.Writer
	Bin   string // directory with the programs
	Piece string // file of 127·2^k bytes, at the most 2032; empty: a text of our own
	// Parameters is the directory of the Groth16 parameters; missing ones are made, for
	// development, which takes a minute or two once.
	Parameters string
	Keep       bool          // leave the directory
	Hold       time.Duration // keep the fleet running for so long afterwards, for a look
}

const (
	demoMiner  = 1000
	demoNumber = 7
	demoNode   = "node1"
	pieceSize  = 2032 // what a sector of 2 KiB holds
)

// pieceText fills the demo's piece: real data, that can be found again in the unsealed
// file (padded by two bits in each 254).
const pieceText = "A sector of Filecoin is sealed in six phases. p1 labels its nodes layer by layer, and is slow on purpose. " +
	"p2 hashes the columns of labels, encodes the data with the last layer, and builds the trees of commitments. " +
	"When the chain has taken them it answers with a seed, which p3 turns into challenges and vanilla proofs; p4 compresses those into a SNARK. " +
	"p5 copies the replica to a storage node and reads it back, and p6 frees the space that all this took. "

// Run runs the demo. It returns an error if anything was not as it should be, and leaves
// nothing behind.
func (d *Demo) Run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "sealfleet-demo-")
	if err != nil {
		return err
	}
	f := &Fleet{Dir: dir, Bin: d.Bin, Env: []string{"DEV_CHAIN_EPOCH=250ms", "DOCTOR_LIMIT=60s", "FIL_PROOFS_PARAMETER_CACHE=" + d.Parameters}}
	defer func() {
		err = errors.Join(err, f.Stop(time.Minute))
		if err != nil {
			fmt.Fprintf(d.Out, "\nThe end of the programs' logs:\n%s\n", f.Tails(3000))
		}
		if d.Keep {
			fmt.Fprintln(d.Out, "kept:", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := f.Prepare(demoNode); err != nil {
		return err
	}
	piece, err := d.piece(dir)
	if err != nil {
		return err
	}
	if err := d.parameters(ctx, f); err != nil {
		return err
	}
	fmt.Fprintln(d.Out, "Starting a dispatcher with an embedded NATS server, and a consumer with slots for all phases.")
	if _, err := f.Dispatcher("demo"); err != nil {
		return err
	}
	if _, err := f.Consumer("demo-host", "2:p1;1:p2,p3;2:p4,p5;1:p6", "STORAGE_NODES="+demoNode+"="+f.Node(demoNode)); err != nil {
		return err
	}
	b, err := f.Connect(ctx)
	if err != nil {
		return fmt.Errorf("the dispatcher does not come up: %w", err)
	}
	defer b.Close()
	if err := d.hint(f); err != nil {
		return err
	}
	if _, err := f.Run(ctx, "dispatcher", "submit", "--miner", fmt.Sprint(demoMiner), "--sector", fmt.Sprint(demoNumber), "--size", "2KiB", "--piece", piece); err != nil {
		return err
	}
	s := &show{out: d.Out, id: phases.SectorID(demoMiner, demoNumber), sector: phases.NewSector(), outputs: map[string]string{}, start: time.Now()}
	if err := s.watch(ctx, b, f); err != nil {
		return err
	}
	if err := s.summary(f); err != nil || d.Hold == 0 {
		return err
	}
	fmt.Fprintf(d.Out, "\nThe fleet stays up for %v (Ctrl-C ends it).\n", d.Hold)
	select {
	case <-time.After(d.Hold):
	case <-ctx.Done():
	}
	return nil
}

// parameters makes p4's parameters if they are not there, with progress on the screen.
func (d *Demo) parameters(ctx context.Context, f *Fleet) error {
	fmt.Fprintf(d.Out, "Parameters of p4 for 2 KiB sectors, in %s:\n", d.Parameters)
	cmd := exec.CommandContext(ctx, filepath.Join(d.Bin, "consumer"), "params", "--proof-type", "5")
	cmd.Env = f.environment([]string{"LOG_LEVEL=WARN"})
	cmd.Stdout, cmd.Stderr = d.Out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("consumer params: %w", err)
	}
	fmt.Fprintln(d.Out)
	return nil
}

// piece returns the path of the piece's file.
func (d *Demo) piece(dir string) (string, error) {
	if d.Piece != "" {
		return filepath.Abs(d.Piece)
	}
	text := strings.Repeat(pieceText, pieceSize/len(pieceText)+1)[:pieceSize]
	path := filepath.Join(dir, "piece.txt")
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// hint tells how to look inside with the nats CLI.
func (d *Demo) hint(f *Fleet) error {
	nats := filepath.Join(f.State(), "nats")
	data, err := os.ReadFile(filepath.Join(nats, "server.json"))
	if err != nil {
		return err
	}
	var local struct {
		URL  string `json:"url"`
		Seed string `json:"dispatcher_seed"`
	}
	if err := json.Unmarshal(data, &local); err != nil {
		return fmt.Errorf("server.json: %w", err)
	}
	fmt.Fprintf(d.Out, "Look inside while it runs, from another terminal:\n\n  export NATS_URL=%s NATS_NKEY=%s\n  nats stream report\n  nats sub 'ev.>'\n\n",
		local.URL, filepath.Join(nats, local.Seed))
	return nil
}

// show tells a sector's events as they come.
type show struct {
	out     io.Writer
	id      string
	sector  *phases.Sector
	outputs map[string]string
	done    int
	start   time.Time
	ended   time.Duration
	failure error
}

// demoPatience is how long nothing may happen: the gates take some seconds, p4 perhaps
// minutes when it makes a SNARK (its progress counts).
const demoPatience = 10 * time.Minute

var errOver = errors.New("over")

func (s *show) watch(ctx context.Context, b *bus.Bus, f *Fleet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(demoPatience, func() { cancel(fmt.Errorf("nothing happened for %v", demoPatience)) })
	defer quiet.Stop()
	alive := time.NewTicker(500 * time.Millisecond)
	defer alive.Stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-alive.C:
				if err := f.Ended(); err != nil {
					cancel(err)
				}
			}
		}
	}()
	err := b.Follow(ctx, 1, func(e phases.Event) error {
		quiet.Reset(demoPatience)
		return s.take(e)
	})
	switch {
	case errors.Is(err, errOver):
		return s.failure
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	}
	return err
}

// take shows one event; errOver ends the watch.
func (s *show) take(e phases.Event) error {
	if e.Sector != s.id {
		return nil
	}
	if err := s.sector.Apply(e); err != nil {
		return nil // it is not believed
	}
	r := e.Result
	switch e.Type {
	case phases.Submitted:
		s.line("submitted", "sector %d of miner f0%d, 2 KiB, %d piece", e.Spec.Number, e.Spec.Miner, len(e.Spec.Pieces))
	case phases.Claimed:
		s.line(string(e.Step), "%s, on %s …", what[e.Step], e.Host)
	case phases.Issued:
		if e.Step.IsGate() {
			s.line(string(e.Step), "%s …", what[e.Step])
		}
	case phases.Progress:
		s.line(string(e.Step), "%s", e.Note)
	case phases.Done:
		s.done++
		maps.Copy(s.outputs, r.Outputs)
		text := fmt.Sprintf("done in %v", time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond))
		if r.Seconds == 0 {
			text = "done"
		}
		if r.Message != "" {
			text += ": " + r.Message
		}
		s.line(string(e.Step), "%s", text)
	case phases.Failed:
		s.line(string(e.Step), "FAILED: %s (%s, %s)", r.Message, r.Code, r.Class)
	case phases.Finished:
		s.ended = time.Since(s.start)
		if r.Code != string(phases.StatusFinished) {
			s.failure = fmt.Errorf("the sector ended as %s: %s", r.Code, r.Message)
		}
		return errOver
	}
	if s.sector.Status(phases.DefaultPolicy()) == phases.StatusParked {
		s.failure = fmt.Errorf("%s failed for good", e.Step)
		return errOver
	}
	return nil
}

// what says in a few words what a step does.
var what = map[phases.Step]string{
	phases.P1: "labels", phases.P2: "columns, trees and replica", phases.Precommit: "the chain takes CommR and draws a seed",
	phases.P3: "vanilla proofs", phases.P4: "the SNARK", phases.P5: "copies to the storage node", phases.Commit: "the chain checks the proof",
	phases.P6: "cleans",
}

// line writes a line with a bar of the steps that are done.
func (s *show) line(step, format string, args ...any) {
	steps := len(phases.Steps())
	bar := strings.Repeat("█", s.done) + strings.Repeat("░", steps-s.done)
	fmt.Fprintf(s.out, "%6.1fs  %s %d/%d  %-9s  %s\n", time.Since(s.start).Seconds(), bar, s.done, steps, step, fmt.Sprintf(format, args...))
}

// summary checks what was promised and tells it.
func (s *show) summary(f *Fleet) error {
	var receipt storage.Receipt
	if err := json.Unmarshal([]byte(s.outputs["receipt"]), &receipt); err != nil {
		return fmt.Errorf("p5 left no receipt: %w", err)
	}
	fmt.Fprintf(s.out, "\nSealed in %v.\n", s.ended.Round(100*time.Millisecond))
	if s.outputs["proof"] == "" {
		return fmt.Errorf("p4 made no SNARK: %s", s.outputs["snark"])
	}
	proof := fmt.Sprintf("%s, %s bytes, verified by p4 and by the chain, SHA-256 %s", s.outputs["snark"], s.outputs["proof_bytes"], s.outputs["proof_sha256"])
	freed := s.outputs["bytes_freed"]
	if n, ok := parseBytes(freed); ok {
		freed = humanize.IBytes(n)
	}
	for _, row := range [][2]string{
		{"CommD", s.outputs["comm_d"]}, {"CommR", s.outputs["comm_r"]}, {"replica id", s.outputs["replica_id"]},
		{"proof", proof}, {"p6 freed", freed},
		{"receipt", fmt.Sprintf("%d files, %s on %s, each read back and hashed again just now:", len(receipt.Files), humanize.IBytes(uint64(receipt.Bytes())), receipt.Node)},
	} {
		fmt.Fprintf(s.out, "  %-11s %s\n", row[0], row[1])
	}
	for _, file := range receipt.Files {
		data, err := os.ReadFile(filepath.Join(f.Node(receipt.Node), file.Name))
		if err != nil {
			return fmt.Errorf("the storage node lacks what the receipt names: %w", err)
		}
		sum := sha256.Sum256(data)
		if hex.EncodeToString(sum[:]) != file.SHA256 || int64(len(data)) != file.Size {
			return fmt.Errorf("%s on the storage node is not what the receipt says", file.Name)
		}
		fmt.Fprintf(s.out, "  %-11s %s  %6d  %s\n", "", file.SHA256, file.Size, file.Name)
	}
	cache := storage.Layout{LocalDir: f.Sealer(), IP: s.outputs["ip"], Sector: s.id}.Cache()
	if _, err := os.Stat(cache); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("p6 left the cache behind: %v", err)
	}
	fmt.Fprintf(s.out, "  %-11s %s\n", "cache", "gone")
	return nil
}

func parseBytes(text string) (n uint64, ok bool) {
	_, err := fmt.Sscan(text, &n)
	return n, err == nil
}
