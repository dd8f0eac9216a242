package host

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, good := range []string{"p1", "worker-07_a", strings.Repeat("x", 64)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a.b", "a b", "a*", ">", "é", strings.Repeat("x", 65)} {
		if CheckName(bad) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestPrimaryIPv4IsAnAddress(t *testing.T) {
	if ip := net.ParseIP(PrimaryIPv4()); ip == nil || ip.To4() == nil {
		t.Errorf("got %v", ip)
	}
}

func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	if err := CheckDir(dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("check left %v behind", left)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "absent"): "mkdir -p",
		file:                         "is not a directory",
	} {
		if err := CheckDir(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// The old note's fault: /sealer/nfs belonged to root with mode 755, and the service's
// user could not make its directory in it. As root the test runs itself again as another
// user, because root may write anywhere.
func TestForeignDirectoryNamesOwnerUserAndMend(t *testing.T) {
	if dir := os.Getenv("SEALFLEET_TEST_FOREIGN_DIR"); dir != "" {
		for _, err := range []error{CheckDir(dir), MakeDir(filepath.Join(dir, "10.10.13.22", "sealed"))} {
			if !errors.Is(err, fs.ErrPermission) {
				t.Fatalf("got %v", err)
			}
			for _, want := range []string{"belongs to root", "mode 0755", "chown " + UserName() + " " + dir, "chmod 777 " + dir} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a directory of another user")
	}
	// t.TempDir may lie below directories that other users can't enter.
	top, err := os.MkdirTemp("/tmp", "sealfleet-host-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	dir := filepath.Join(top, "nfs")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(top, "test")
	data, err := os.ReadFile(self)
	if err == nil {
		err = errors.Join(os.WriteFile(program, data, 0o755), os.Mkdir(dir, 0o755), os.Chmod(top, 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SEALFLEET_TEST_FOREIGN_DIR="+dir)
	cmd.Dir = top
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user 65534: %v\n%s", err, out)
	}
}
