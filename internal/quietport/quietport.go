// Package quietport finds addresses for servers of tests and measurements that start later
// than their address is told, or stop and come again at the same one.
//
// A port that listening on port 0 gives lies among those that the system hands out to
// everybody: while its server is away, any other server that asks for port 0, and any
// connection, may get it.
package quietport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Below the first port that Linux hands out unasked (net.ipv4.ip_local_port_range), and
// above those of well-known services.
const (
	first = 10_000
	last  = 32_000
)

// Address returns a loopback address, with its port, that nobody listens on now.
func Address() (string, error) {
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(last-first)))
		l, err := net.Listen("tcp", address) //nolint:noctx // it listens at once or not at all
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return address, l.Close()
	}
	return "", errors.New("a thousand ports were tried, and all are in use")
}
