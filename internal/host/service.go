package host

import (
	"net"
	"os"
	"path/filepath"
	"strings"
)

// StateDir is where a program keeps what it must remember if nobody says: systemd's
// directory for the service, the system's (as given) for root, else the user's own.
func StateDir(system string) string {
	if dirs := os.Getenv("STATE_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":")
		return first
	}
	if os.Geteuid() == 0 {
		return system
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return system
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "sealfleet")
}

// Notify tells systemd how the service stands (READY=1, STOPPING=1), if it asked to be
// told (Type=notify). Failing to is no reason to stop: systemd notices by itself.
func Notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // a datagram: nothing can be lost
	_, _ = conn.Write([]byte(state))
}
