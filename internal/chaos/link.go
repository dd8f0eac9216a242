package chaos

import (
	"errors"
	"net"
	"sync"
	"time"
)

// link is a host's way to one NATS server: a proxy that can lose what passes, or hold it up.
//
// (toxiproxy as a library was tried. When a connection with latency is closed, it waits
// five seconds for each chunk that is still in it, under a lock that keeps new ones out.)
type link struct {
	listener net.Listener
	upstream string

	mu    sync.Mutex
	conns map[net.Conn]bool
	spoil weather
}

// weather is what befalls the bytes on a link.
type weather struct {
	loseUp, loseDown bool          // towards the server, towards the host
	delay            time.Duration // of each piece towards the host
}

func newLink(upstream string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{listener: listener, upstream: upstream, conns: map[net.Conn]bool{}}
	go l.accept()
	return l, nil
}

func (l *link) addr() string { return l.listener.Addr().String() }

func (l *link) accept() {
	for {
		host, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // out of file handles: the host tries again
		}
		go func() {
			server, err := net.DialTimeout("tcp", l.upstream, 5*time.Second)
			if err != nil {
				host.Close()
				return
			}
			l.mu.Lock()
			l.conns[host], l.conns[server] = true, true
			l.mu.Unlock()
			go l.pump(server, host, true)
			l.pump(host, server, false)
		}()
	}
}

// pump moves bytes until one side closes. What is lost is lost for good: the connection
// is closed before anything passes again.
func (l *link) pump(to, from net.Conn, up bool) {
	defer func() {
		to.Close()
		from.Close()
		l.mu.Lock()
		delete(l.conns, to)
		delete(l.conns, from)
		l.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		w := l.spoil
		l.mu.Unlock()
		if up && w.loseUp || !up && w.loseDown {
			continue
		}
		if !up && w.delay > 0 {
			time.Sleep(w.delay) // what the fault is about
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// worsen changes the weather.
func (l *link) worsen(w weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spoil = w
}

// heal makes the link as good as new: all its connections are closed first.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
	l.spoil = weather{}
}

func (l *link) close() {
	_ = l.listener.Close() // the run is over
	l.heal()
}
