// Command chaos lets a real fleet seal sectors while faults strike, and checks afterwards
// what was promised. It prints its seed, the faults as they come, and a report as JSON;
// the exit code is 1 if a promise was broken, and everything is then left in its directory.
//
//	go run ./bench/chaos                                  # 1,000 sectors, 500 faults, embedded server
//	go run ./bench/chaos -servers 3 -seed 7               # a cluster of three
//	go run ./bench/chaos -measure                         # how soon it recovers
//	go run ./bench/chaos -sectors 40 -faults 20 -kinds freeze-consumer,forge
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"sealfleet/internal/chaos"
)

func main() {
	var o chaos.Options
	flag.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "seed of the plan of faults")
	flag.IntVar(&o.Sectors, "sectors", 1000, "sectors to seal")
	flag.IntVar(&o.Faults, "faults", 500, "faults to strike with")
	flag.DurationVar(&o.Every, "every", time.Second, "mean time between faults")
	flag.IntVar(&o.Servers, "servers", 0, "NATS servers: 0 is the dispatcher's embedded one; 1; or a cluster of 3")
	flag.IntVar(&o.Dispatchers, "dispatchers", 2, "dispatchers")
	flag.IntVar(&o.Consumers, "consumers", 4, "hosts")
	flag.DurationVar(&o.AckWait, "ack-wait", 1500*time.Millisecond, "lease of a task")
	flag.DurationVar(&o.Work, "work", 2*time.Second, "most that a phase takes longer than its own work")
	flag.IntVar(&o.FailPerMille, "fail", 10, "of a thousand runs of an engine, how many fail for no reason")
	flag.DurationVar(&o.Patience, "patience", 3*time.Minute, "how long no sector may end once the faults are over")
	measure := flag.Bool("measure", false, "measure how soon the fleet recovers instead (-kinds consumer,dispatcher,outage)")
	jobs := flag.Int("jobs", 1000, "with -measure: jobs in flight over the outage")
	kinds := flag.String("kinds", "", "only these faults, in turn (all)")
	flag.StringVar(&o.Dir, "dir", "", "directory of the run (a temporary one)")
	flag.StringVar(&o.Bin, "bin", "", "directory with the programs (built anew)")
	flag.Parse()
	if *kinds != "" {
		o.Kinds = strings.Split(*kinds, ",")
	}
	o.Log = os.Stderr
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if !*measure {
		*jobs = 0
	}
	if err := run(ctx, o, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// run is a run of chaos, or with jobs a measurement.
func run(ctx context.Context, o chaos.Options, jobs int) error {
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "sealfleet-chaos-")
		if err != nil {
			return err
		}
		o.Dir = filepath.Join(dir, "run")
	}
	if o.Bin == "" {
		o.Bin = filepath.Join(filepath.Dir(o.Dir), "bin")
		fmt.Fprintln(os.Stderr, "building the programs")
		if err := chaos.Programs(ctx, o.Bin); err != nil {
			return err
		}
	}
	var report any
	var err error
	if jobs > 0 {
		report, err = chaos.Measure(ctx, o, jobs)
	} else {
		report, err = chaos.Run(ctx, o)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	_ = out.Encode(report) // a terminal that is gone reads nothing
	if err != nil {
		return fmt.Errorf("seed %d, everything is left in %s:\n%w", o.Seed, o.Dir, err)
	}
	return os.RemoveAll(o.Dir)
}
