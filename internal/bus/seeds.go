package bus

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/google/renameio/v2"
	"github.com/nats-io/nkeys"
)

// ensureSeed makes the file with an nkey user seed unless it is there, and returns the
// public key.
func ensureSeed(path string) (public string, err error) {
	seed, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		kp, kerr := nkeys.CreateUser()
		if kerr != nil {
			return "", kerr
		}
		if seed, err = kp.Seed(); err != nil {
			return "", err
		}
		err = renameio.WriteFile(path, append(seed, '\n'), 0o600, renameio.IgnoreUmask())
	}
	if err != nil {
		return "", fmt.Errorf("nkey seed %s: %w", path, err)
	}
	kp, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return "", fmt.Errorf("nkey seed %s: %w; remove the file to have a new one made (hosts then need the new one)", path, err)
	}
	return kp.PublicKey()
}

// serverLog writes the embedded server's lines to our log. Its notices are of interest
// only when looking for something.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // takes the first
	full  atomic.Bool // a write failed for want of room, and the store refuses all since
}

// noRoom are the server's words for a disk that is full.
var noRoom = []string{"no space left on device", "disk quota exceeded", "JetStream out of resources"}

func (l *serverLog) look(text string) string {
	for _, words := range noRoom {
		if strings.Contains(text, words) {
			l.full.Store(true)
		}
	}
	return "nats: " + text
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) { l.log.Warn(l.look(fmt.Sprintf(format, v...))) }
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error(l.look(fmt.Sprintf(format, v...)))
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

// Fatalf is called where the server by itself would end its process.
func (l *serverLog) Fatalf(format string, v ...any) {
	why := fmt.Sprintf(format, v...)
	l.log.Error("nats: " + why)
	select {
	case l.fatal <- why:
	default:
	}
}
