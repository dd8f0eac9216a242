// Command demo seals a real 2 KiB sector on this machine, from p1 to p6, and shows how.
// It needs the programs dispatcher and consumer beside it: run it by `make demo`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"sealfleet/internal/demo"
)

func main() {
	d := demo.Demo{Out: os.Stdout}
	flag.StringVar(&d.Bin, "bin", "", "directory with the programs dispatcher and consumer (default: where this program lies)")
	flag.StringVar(&d.Piece, "piece", "", "file to seal: 127, 254, 508, 1016 or 2032 bytes (default: a text)")
	flag.StringVar(&d.Parameters, "params-dir", parametersDir(), "directory of p4's parameters; missing ones are made, for development")
	flag.BoolVar(&d.Keep, "keep", false, "leave the demo's directory for a look")
	flag.DurationVar(&d.Hold, "hold", 0, "keep the fleet running for so long afterwards, for a look with the nats CLI (10m)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "demo: no arguments are expected; see demo -h")
		os.Exit(2)
	}
	if d.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(1)
		}
		d.Bin = filepath.Dir(self)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := d.Run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// parametersDir is where a demo leaves parameters for the next one.
func parametersDir() string {
	if dir := os.Getenv("FIL_PROOFS_PARAMETER_CACHE"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "sealfleet", "proof-parameters")
}
