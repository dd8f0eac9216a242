package bus

import "log/slog"

// ServerConfig is how the dispatcher's embedded server runs. It is used if NATS_URL is empty.
type ServerConfig struct {
	Listen string `env:"SERVER_LISTEN" envDefault:"127.0.0.1:4222" desc:"where the embedded NATS server listens; another address than loopback needs SERVER_CERT and SERVER_KEY" example:"0.0.0.0:4222"`
	Cert   string `env:"SERVER_CERT" desc:"TLS certificate of the embedded server, PEM file" example:"/etc/sealfleet/server.pem"`
	Key    string `env:"SERVER_KEY" desc:"key of SERVER_CERT, PEM file" example:"/etc/sealfleet/server.key"`
	Sync   bool   `env:"SERVER_SYNC" envDefault:"true" desc:"sync every write to disk; false may lose two minutes of events at a power cut" example:"true"`

	// StateDir is Config.StateDir; streams, seeds and the URL lie in its nats directory.
	StateDir string
}

// Server is an embedded NATS server.
type Server struct{}

// StartEmbedded starts the server, and waits until it can be used.
func StartEmbedded(c ServerConfig, log *slog.Logger) (*Server, error) { return nil, errNotBuilt }

// ClientURL is where other programs reach the server.
func (s *Server) ClientURL() string { return "" }

// DispatcherSeed and HostSeed are files with nkey seeds.
func (s *Server) DispatcherSeed() string { return "" }
func (s *Server) HostSeed() string       { return "" }

// Close stops the server and waits for it.
func (s *Server) Close() {}
