// Command ratios runs one sector with the reference implementation and with ours, phase
// by phase on the same machine in the same run, and prints the seconds of both and their
// ratio. It fails if their answers differ.
//
//	make bench                                                  # 2 KiB, with parameters and SNARK: about 15 minutes
//	make bench BENCH="-size 512MiB -phases p1,p2,p3"            # about 10 minutes
//
// A phase of the reference's p1 that finds its parents on disk is called warm: give
// -warm, and p1 of the reference runs twice, the first time uncounted.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

var proofTypes = map[string]string{"2KiB": "5", "8MiB": "6", "512MiB": "7", "32GiB": "8", "64GiB": "9"}

var unpadded = map[string]int64{"2KiB": 2 << 10, "8MiB": 8 << 20, "512MiB": 512 << 20, "32GiB": 32 << 30, "64GiB": 64 << 30}

type options struct {
	size, phases, dir   string
	consumer, reference string
	warm                bool
}

// ran is what one program said of one phase.
type ran struct {
	Seconds  map[string]float64 `json:"seconds"`
	CommR    string             `json:"comm_r"`
	CommD    string             `json:"comm_d"`
	C1       string             `json:"c1_json_sha256"`
	cpu      time.Duration
	rss      int64 // bytes
	wallTime time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.size, "size", "2KiB", "sector size: 2KiB, 8MiB, 512MiB, 32GiB, 64GiB")
	flag.StringVar(&o.phases, "phases", "p1,p2,p3,params,p4", "what to run; params makes each side's own parameters anew")
	flag.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "sealfleet-ratios"), "directory to work in; it is emptied")
	flag.StringVar(&o.consumer, "consumer", "bin/consumer", "our program")
	flag.StringVar(&o.reference, "reference", ".cache/reference/release/reference-bench", "the reference's program (make bench-reference)")
	flag.BoolVar(&o.warm, "warm", false, "run the reference's p1 twice, so that its parents' cache is on disk")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if proofTypes[o.size] == "" {
		return fmt.Errorf("-size %q: use 2KiB, 8MiB, 512MiB, 32GiB or 64GiB", o.size)
	}
	if err := os.RemoveAll(o.dir); err != nil {
		return err
	}
	for _, d := range []string{"ours", "reference", "params-ours", "params-reference", "parents"} {
		if err := os.MkdirAll(filepath.Join(o.dir, d), 0o755); err != nil {
			return err
		}
	}
	piece := filepath.Join(o.dir, "piece")
	if err := writePiece(piece, unpadded[o.size]/128*127); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\treference s\tours s\tratio\treference CPU s\tours CPU s\tratio\treference MiB\tours MiB\t")
	for phase := range strings.SplitSeq(o.phases, ",") {
		if phase == "p1" && o.warm {
			if _, err := o.runReference(ctx, phase, piece); err != nil {
				return err
			}
			if err := os.RemoveAll(filepath.Join(o.dir, "reference", "cache")); err != nil {
				return err
			}
		}
		theirs, err := o.runReference(ctx, phase, piece)
		if err != nil {
			return err
		}
		ours, err := o.runOurs(ctx, phase, piece)
		if err != nil {
			return err
		}
		if ours.C1 != theirs.C1 || theirs.CommR != "" && ours.CommR != theirs.CommR {
			return fmt.Errorf("%s: the answers differ: CommR %s and %s, c1 %s and %s", phase, theirs.CommR, ours.CommR, theirs.C1, ours.C1)
		}
		a, b := theirs.Seconds[phase], ours.Seconds[phase]
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.3f\t%.2f\t%.2f\t%.3f\t%d\t%d\t\n", phase, a, b, b/a,
			theirs.cpu.Seconds(), ours.cpu.Seconds(), ours.cpu.Seconds()/theirs.cpu.Seconds(), theirs.rss>>20, ours.rss>>20)
	}
	return tw.Flush()
}

func (o options) runReference(ctx context.Context, phase, piece string) (*ran, error) {
	return execute(ctx, []string{"FIL_PROOFS_PARAMETER_CACHE=" + filepath.Join(o.dir, "params-reference"), "FIL_PROOFS_PARENT_CACHE=" + filepath.Join(o.dir, "parents")},
		o.reference, "--proof-type", proofTypes[o.size], "--piece", piece, "--dir", filepath.Join(o.dir, "reference"), "--phases", phase)
}

func (o options) runOurs(ctx context.Context, phase, piece string) (*ran, error) {
	env := []string{"FIL_PROOFS_PARAMETER_CACHE=" + filepath.Join(o.dir, "params-ours")}
	if phase == "params" {
		r, err := execute(ctx, env, o.consumer, "params", "--proof-type", proofTypes[o.size], "--output", "json")
		if err == nil {
			r.Seconds = map[string]float64{"params": r.wallTime.Seconds()}
		}
		return r, err
	}
	r, err := execute(ctx, env, o.consumer, "bench", "--proof-type", proofTypes[o.size], "--miner", "1000", "--sector", "7", "--ticket", strings.Repeat("01", 32),
		"--seed", strings.Repeat("02", 32), "--piece", piece, "--dir", filepath.Join(o.dir, "ours"), "--phases", phase)
	if err == nil && phase != "p3" {
		r.C1 = "" // the reference names it at p3 only
	}
	return r, err
}

// execute runs a program and reads its JSON and what it took.
func execute(ctx context.Context, env []string, program string, args ...string) (*ran, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	r := &ran{wallTime: time.Since(start)}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return nil, errors.New("no resource usage on this system")
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	r.rss = usage.Maxrss << 10
	return r, nil
}

// writePiece writes a counter stream of n bytes: data that no padding or compression likes.
func writePiece(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	buf := make([]byte, 0, 1<<20)
	for i := uint64(0); n > 0; i++ {
		block := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("ratios"), i))
		take := min(n, int64(len(block)))
		buf = append(buf, block[:take]...)
		if n -= take; len(buf) == cap(buf) || n == 0 {
			if _, err := f.Write(buf); err != nil {
				return errors.Join(err, f.Close())
			}
			buf = slices.Delete(buf, 0, len(buf))
		}
	}
	return f.Close()
}
