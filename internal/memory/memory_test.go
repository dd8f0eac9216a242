package memory

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// machine writes files as /proc and /sys have them, and returns their root.
func machine(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAvailableMemory(t *testing.T) {
	const meminfo = "MemTotal:       24684092 kB\nMemFree:        1000 kB\nMemAvailable:   2000 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"nothing to read": {nil, math.MaxUint64},
		"no groups":       {map[string]string{"proc/meminfo": meminfo}, 2000 << 10},
		"no limit": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "5\n",
		}, 2000 << 10},
		"a limit of its own, with cache": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "1000000\n", "sys/fs/cgroup/a/memory.current": "900000\n",
			"sys/fs/cgroup/a/memory.stat": "anon 3\ninactive_file 700000\n",
		}, 800_000},
		"a limit further up": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "1000000\n", "sys/fs/cgroup/a/b/memory.current": "1\n",
			"sys/fs/cgroup/a/memory.max": "500000\n", "sys/fs/cgroup/a/memory.current": "400000\n",
		}, 100_000},
		"over the limit": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "20\n",
		}, 0},
		"version 1": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:cpu,memory:/c\n4:pids:/d\n",
			"sys/fs/cgroup/memory/c/memory.limit_in_bytes": "9000\n", "sys/fs/cgroup/memory/c/memory.usage_in_bytes": "2000\n",
		}, 7000},
	} {
		root := machine(t, c.files)
		if got := Available(root); got != c.want {
			t.Errorf("%s: %d bytes, not %d", name, got, c.want)
		}
		if got := Total(root); got < c.want {
			t.Errorf("%s: %d bytes in all, fewer than are available", name, got)
		}
	}
}
