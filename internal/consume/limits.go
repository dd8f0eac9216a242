package consume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"sealfleet/internal/sealcore/durable"
)

// CopyLimits are limits that an operator sets while the consumer runs, in the place of
// COPY_LIMIT_MB_PER_SEC and of the nodes' own. They lie in a file of STATE_DIR, so they
// outlive a restart; the consumer looks at it every second.
type CopyLimits struct {
	Host  *int64           `json:"host_mb_per_sec,omitempty"`  // 10^6 bytes per second; 0: unlimited
	Nodes map[string]int64 `json:"nodes_mb_per_sec,omitempty"` // by name; 0: unlimited
}

const limitsEvery = time.Second

func limitsPath(stateDir string) string { return filepath.Join(stateDir, "copy-limits.json") }

// ReadCopyLimits reads what was set; nothing, if nothing was.
func ReadCopyLimits(stateDir string) (l CopyLimits, err error) {
	data, err := os.ReadFile(limitsPath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return CopyLimits{}, fmt.Errorf("%s is damaged: %w; mend: consumer limit --reset", limitsPath(stateDir), err)
	}
	return l, l.check()
}

func (l CopyLimits) check() error {
	bad := func(n int64) bool { return n < 0 || n > 1<<30 }
	if l.Host != nil && bad(*l.Host) {
		return fmt.Errorf("%d MB/s for the host: use 0 (unlimited) or more", *l.Host)
	}
	for name, n := range l.Nodes {
		if bad(n) {
			return fmt.Errorf("%d MB/s for storage node %s: use 0 (unlimited) or more", n, name)
		}
	}
	return nil
}

// Write keeps the limits. The running consumer of this STATE_DIR takes them within
// seconds.
func (l CopyLimits) Write(stateDir string) error {
	if err := l.check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return durable.Write(limitsPath(stateDir), append(data, '\n'))
}

// nodeLimits are those of the settings.
func (n Nodes) limits() map[string]int64 {
	out := map[string]int64{}
	for _, node := range n {
		if node.Limit > 0 {
			out[node.Name] = node.Limit
		}
	}
	return out
}

// over puts the limits that were set in the place of those of the settings.
func (l CopyLimits) over(cfg *Config) (total int64, nodes map[string]int64) {
	total, nodes = cfg.CopyLimit*1e6, cfg.Nodes.limits()
	if l.Host != nil {
		total = *l.Host * 1e6
	}
	for name, n := range l.Nodes {
		nodes[name] = n * 1e6
	}
	return total, nodes
}

// followLimits applies the limits of the state directory until ctx ends.
func (c *Consumer) followLimits(ctx context.Context) {
	if c.cfg.Bus.StateDir == "" {
		return
	}
	var lastTotal int64 = -1
	var lastNodes map[string]int64
	told := ""
	tick := time.NewTicker(limitsEvery)
	defer tick.Stop()
	for {
		limits, err := ReadCopyLimits(c.cfg.Bus.StateDir)
		if err != nil {
			if err.Error() != told {
				c.log.Warn("copy limits stay as they are", "error", err)
			}
			told = err.Error()
		} else if total, nodes := limits.over(&c.cfg); total != lastTotal || !maps.Equal(nodes, lastNodes) {
			if lastTotal >= 0 {
				c.log.Info("copy limits changed", "host_bytes_per_sec", total, "nodes", nodes)
			}
			lastTotal, lastNodes, told = total, nodes, ""
			c.shares.set(total, maps.Clone(nodes))
			c.metrics.copyLimit.Set(float64(total))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
