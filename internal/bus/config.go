package bus

import (
	"time"

	"sealfleet/internal/trace"
)

// Config is how a program reaches the bus. The NATS variables are those that the nats
// CLI knows.
type Config struct {
	URL      string        `env:"NATS_URL" desc:"NATS servers, comma-separated; empty: the embedded server of the dispatcher on this machine" example:"nats://nats1:4222,nats://nats2:4222"`
	Creds    string        `env:"NATS_CREDS" desc:"credentials file (JWT and seed)" example:"/etc/sealfleet/host.creds"`
	Nkey     string        `env:"NATS_NKEY" desc:"file with an nkey user seed" example:"/etc/sealfleet/host.nk"`
	Cert     string        `env:"NATS_CERT" desc:"TLS client certificate, PEM file" example:"/etc/sealfleet/client.pem"`
	Key      string        `env:"NATS_KEY" desc:"key of the TLS client certificate, PEM file" example:"/etc/sealfleet/client.key"`
	CA       string        `env:"NATS_CA" desc:"certificate authority of the servers, PEM file" example:"/etc/sealfleet/ca.pem"`
	User     string        `env:"NATS_USER" desc:"user name, or a token if there is no password" example:"p1-host"`
	Password string        `env:"NATS_PASSWORD" secret:"true" desc:"password of NATS_USER" example:"s3cret"`
	Token    string        `env:"NATS_TOKEN" secret:"true" desc:"authentication token" example:"s3cret"`
	StateDir string        `env:"STATE_DIR" envDefault:"/var/lib/sealfleet" desc:"where this program keeps what it must remember; the dispatcher's embedded server stores its streams there" example:"/var/lib/sealfleet"`
	AckWait  time.Duration `env:"ACK_WAIT" envDefault:"2m" desc:"how soon a crashed host's task goes to another host; hosts heartbeat at a sixth of it" example:"2m"`
	Replicas int           `env:"STREAM_REPLICAS" envDefault:"1" desc:"copies of each stream: 1 on one server, 3 on a cluster of three" example:"3"`

	// Role is set by the program: hosts read chains directly and have fewer permissions.
	Role Role
	// Server is the embedded server in this process, to be reached without a socket; nil: over the network.
	Server *Server
	// Tracer puts headers on events and tasks; nil: there are none.
	Tracer *trace.Tracer
}

// Role is what a program may do on the bus.
type Role int

// The roles.
const (
	RoleDispatcher Role = iota // dispatchers and the operator's verbs: everything
	RoleHost                   // consumers: their tasks, their own events
)

// Heartbeat is how often a host extends its lease: a sixth of AckWait, so that a lost
// message or two do no harm.
func (c Config) Heartbeat() time.Duration { return c.AckWait / 6 }
