// Package host is what the fleet knows of the machine that it runs on: its name and
// address, and whether a directory can be used, with the mend when it can't.
//
// Most of what went wrong with the system before this one was a directory that the
// service's user could not write, noticed hours into a job. So nothing here says only
// "permission denied": it says who owns what and which command mends it.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Name returns the host's name as the fleet writes it: letters, digits, '-' and '_',
// at the most 64 of them; dots become '-'.
func Name() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this host has no name: %w; set HOST_NAME", err)
	}
	name = strings.ReplaceAll(name, ".", "-")
	return name, CheckName(name)
}

// CheckName refuses names that can't be part of a subject.
func CheckName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("host name %q has %d characters: use 1 to 64", name, len(name))
	}
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return fmt.Errorf("host name %q: use letters, digits, '-' and '_' only", name)
		}
	}
	return nil
}

// PrimaryIPv4 returns the address by which other hosts reach this one: that of the
// default route, else the first that is not a loopback, else 127.0.0.1.
func PrimaryIPv4() string {
	// Connecting a datagram socket sends nothing; it only asks for the route.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() && !a.IP.IsUnspecified() {
			return a.IP.String()
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// UserName returns the name of the user that this process runs as, or its number.
func UserName() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// CheckDir tells whether a directory exists and files can be made, written, synced, read
// back and removed in it by this user.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: make it (mkdir -p %[1]s && chown %[2]s %[1]s) or mount it", dir, UserName())
	case err != nil:
		return Mend(dir, err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	}
	return TryDir(dir)
}

// MakeDir makes a directory and those above it, and says what is wrong and how to mend
// it when it can't.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Mend(dir, err)
	}
	return nil
}

// Mend adds to an error of a path who may do what there and the command that mends it.
// Errors other than a lack of permission are returned with the path alone.
func Mend(path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		path, err = pathErr.Path, pathErr.Err
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w", path, err)
	}
	who := UserName()
	// The fault lies with the nearest directory that exists and can't be written.
	dir := path
	for {
		info, statErr := os.Stat(dir)
		if statErr == nil && info.IsDir() {
			owner := "an unknown owner"
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				owner = userOf(st.Uid)
			}
			return fmt.Errorf("%s: %w for user %s: %s belongs to %s with mode %04o; mend: chown %s %s (or chmod 777 %[4]s)",
				path, err, who, dir, owner, info.Mode().Perm(), who, dir)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return fmt.Errorf("%s: %w for user %s", path, err, who)
		}
		dir = up
	}
}

func userOf(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// FreeBytes returns how many bytes this user may still write to the file system of path.
func FreeBytes(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ between platforms
}
