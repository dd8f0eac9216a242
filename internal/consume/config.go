package consume

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
	"sealfleet/internal/storage"
	"sealfleet/internal/web"
)

// Config is a consumer's settings.
type Config struct {
	Workers  Workers `env:"WORKERS" envDefault:"1:p1;1:p2,p3;1:p4,p5;4:p6" desc:"slots: number:phases;…, each entry its own slots (p1…p6, or the old names such as PreCommitPhase1)" example:"10:p1;1:p2,p3;1:p4,p5;4:p6"`
	Groups   Groups  `env:"SEAL_GROUPS" envDefault:"group1" desc:"groups that this host works for; a bare number N is groupN" example:"group1,group2"`
	HostName string  `env:"HOST_NAME" desc:"this host's name in the fleet; empty: the system's host name" example:"p1-host-3"`
	IP       string  `env:"IP" desc:"own address, which names the directory of what p1 writes (LOCAL_DIR/nfs/IP); empty: the address of the default route" example:"10.10.13.22"`

	LocalDir  string `env:"LOCAL_DIR" envDefault:"/sealer" desc:"directory with the shares of the group's P1 hosts" example:"/sealer"`
	Nodes     Nodes  `env:"STORAGE_NODES" desc:"storage nodes for p5: name=/directory or name=s3://bucket/prefix, with commas between; after each, behind semicolons: weight=2, groups=group1|group2, deny=group3, readonly, limit=200 (MB/s), keep=100GiB; of s3 also quota=100TiB, endpoint, region, credentials" example:"node1=/mnt/node1;weight=2,node2=/mnt/node2"`
	CopyLimit int64  `env:"COPY_LIMIT_MB_PER_SEC" envDefault:"500" desc:"most that all copies of this host move together, 10^6 bytes per second, reading back included; 0: unlimited" example:"500"`

	FetchWait    time.Duration `env:"FETCH_WAIT" envDefault:"60s" desc:"how long one request for a task waits at the server; a task that comes is handed over at once" example:"60s"`
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" envDefault:"30s" desc:"on SIGTERM, how long running phases may go on before they are stopped and handed back" example:"4h"`

	OrphanLimit time.Duration `env:"ORPHAN_LIMIT" envDefault:"2m" desc:"how long running phases go on without a consumer (it crashed, or is exchanged) before they stop; the next consumer of this HOST_NAME goes on with them; longer than ACK_WAIT only if no other host does the same phases, which would take them over" example:"1h"`

	Engine      EngineKind `env:"ENGINE" envDefault:"builtin" desc:"what does the phases: builtin; exec:/path, a program for p1 to p4; p2=exec:/path,p4=exec:/path, programs for some; or noop to measure the bus" example:"p2=exec:/usr/local/bin/engine-filecoin"`
	Exec        ExecConfig
	Threads     int `env:"ENGINE_THREADS" envDefault:"0" desc:"most cores that one phase uses; 0: all" example:"14"`
	P1Batch     P1BatchConfig
	Proof       ProofConfig
	CleanSealed bool `env:"CLEAN_SEALED" envDefault:"false" desc:"p6 also removes the local sealed file, once the storage node's copy was looked at again" example:"true"`

	TidyEvery time.Duration `env:"TIDY_EVERY" envDefault:"10m" desc:"how often to remove from this host's share what attempts left whose sector was done elsewhere or has ended; 0s: never" example:"10m"`

	SpotCheck int `env:"SPOT_CHECK_NODES" envDefault:"16" desc:"nodes of a sector that are recomputed right after p2, before it counts as done; 0: none" example:"16"`
	Audit     AuditConfig

	Doctor host.Settings

	HTTPListen string `env:"HTTP_LISTEN" envDefault:"127.0.0.1:9471" desc:"address of /metrics, /livez and /readyz; off: none" example:"127.0.0.1:9471"`
	HTTP       web.Access
	Bus        bus.Config
	Log        logs.Config
}

// P1BatchConfig is how several p1 of this host are done together.
type P1BatchConfig struct {
	Most int           `env:"P1_BATCH" envDefault:"1" desc:"most sectors whose p1 are done as one batch, interleaved in the same cores, if they begin together; each is still reported, killed and resumed on its own; 1: none (builtin engine only)" example:"6"`
	Wait time.Duration `env:"P1_BATCH_WAIT" envDefault:"30s" desc:"how long the first p1 of a batch waits for others" example:"30s"`
}

// ProofConfig is how p4 proves, for serve and bench alike.
type ProofConfig struct {
	Threads    int    `env:"BELLMAN_PROOF_THREADS" envDefault:"0" desc:"the same for p4 alone; 0: as ENGINE_THREADS" example:"3"`
	SNARK      SNARK  `env:"SNARK" envDefault:"groth16" desc:"what p4 makes: groth16, or none: it verifies every vanilla proof and says that it made no SNARK, which no real chain takes" example:"groth16"`
	SelfMade   bool   `env:"ALLOW_SELF_MADE_PARAMETERS" envDefault:"false" desc:"let 32 and 64 GiB sectors be proved with parameters that Filecoin has not published; whoever made them can forge" example:"true"`
	Parameters string `env:"FIL_PROOFS_PARAMETER_CACHE" envDefault:"/var/tmp/filecoin-proof-parameters" desc:"directory of p4's parameters" example:"/var/tmp/filecoin-proof-parameters"`
}

// Request returns the engine's part of it.
func (p ProofConfig) Request() engine.Proof {
	return engine.Proof{Parameters: p.Parameters, SelfMade: p.SelfMade, None: p.SNARK == SNARKNone}
}

// SNARK says what p4 makes.
type SNARK string

// What p4 makes.
const (
	SNARKGroth16 SNARK = "groth16"
	SNARKNone    SNARK = "none"
)

// UnmarshalText refuses what p4 cannot make.
func (s *SNARK) UnmarshalText(text []byte) error {
	switch v := SNARK(text); v {
	case SNARKGroth16, SNARKNone:
		*s = v
		return nil
	}
	return fmt.Errorf("unknown: use groth16 or none")
}

// EngineKind says what does the phases; engine.ParseChoice has its forms.
type EngineKind string

// The engines.
const (
	EngineBuiltin EngineKind = "builtin" // sealcore, in child processes
	EngineNoop    EngineKind = "noop"    // nothing at all, in this process
)

// UnmarshalText refuses what is not an engine.
func (e *EngineKind) UnmarshalText(text []byte) error {
	if _, err := engine.ParseChoice(string(text)); err != nil {
		return err
	}
	*e = EngineKind(text)
	return nil
}

// Validate fills in what the machine knows and refuses what can't work.
func (c *Config) Validate() error {
	fault := func(name, value, example, format string, args ...any) error {
		return &settings.Fault{Name: name, Value: value, Example: example, Err: fmt.Errorf(format, args...)}
	}
	var faults []error
	if c.HostName == "" {
		name, err := host.Name()
		if err != nil {
			faults = append(faults, fault("HOST_NAME", name, "p1-host-3", "the system's name cannot be used: %w", err))
		}
		c.HostName = name
	}
	if err := host.CheckName(c.HostName); err != nil {
		faults = append(faults, fault("HOST_NAME", c.HostName, "p1-host-3", "%w", err))
	}
	if phases.IsDispatcher(c.HostName) {
		faults = append(faults, fault("HOST_NAME", c.HostName, "p1-host-3", "names that begin with dispatcher are the dispatchers'"))
	}
	if c.IP == "" {
		c.IP = host.PrimaryIPv4()
	}
	if !filepath.IsAbs(c.LocalDir) {
		faults = append(faults, fault("LOCAL_DIR", c.LocalDir, "/sealer", "must be an absolute path"))
	} else if err := (storage.Layout{LocalDir: c.LocalDir, IP: c.IP, Sector: phases.SectorID(1000, 1)}).Validate(); err != nil {
		faults = append(faults, fault("IP", c.IP, "10.10.13.22", "%w", err))
	}
	for _, n := range []struct {
		name, example string
		value         int64
	}{
		{"COPY_LIMIT_MB_PER_SEC", "500", c.CopyLimit}, {"ENGINE_THREADS", "14", int64(c.Threads)},
		{"BELLMAN_PROOF_THREADS", "3", int64(c.Proof.Threads)},
		{"SPOT_CHECK_NODES", "16", int64(c.SpotCheck)}, {"AUDIT_SAMPLES", "16", int64(c.Audit.Samples)},
	} {
		if n.value < 0 || n.value > 1<<30 {
			faults = append(faults, fault(n.name, fmt.Sprint(n.value), n.example, "must be 0 or more"))
		}
	}
	if c.P1Batch.Most < 1 || c.P1Batch.Most > 64 {
		faults = append(faults, fault("P1_BATCH", fmt.Sprint(c.P1Batch.Most), "6", "use 1 (no batches) to 64"))
	}
	if c.P1Batch.Wait < 0 || c.P1Batch.Wait > time.Hour {
		faults = append(faults, fault("P1_BATCH_WAIT", c.P1Batch.Wait.String(), "30s", "use 0s to 1h"))
	}
	if c.FetchWait < time.Second || c.FetchWait > time.Hour {
		faults = append(faults, fault("FETCH_WAIT", c.FetchWait.String(), "60s", "use 1s to 1h"))
	}
	if err := c.Doctor.Check(); err != nil {
		faults = append(faults, err)
	}
	if c.DrainTimeout < 0 {
		faults = append(faults, fault("DRAIN_TIMEOUT", c.DrainTimeout.String(), "4h", "must be 0s or more"))
	}
	if c.OrphanLimit < 0 || c.OrphanLimit > 240*time.Hour {
		faults = append(faults, fault("ORPHAN_LIMIT", c.OrphanLimit.String(), "1h", "use 0s to 240h"))
	}
	if c.TidyEvery < 0 {
		faults = append(faults, fault("TIDY_EVERY", c.TidyEvery.String(), "10m", "must be 0s or more"))
	}
	if i := c.Audit.Interval; i != 0 && i < time.Second {
		faults = append(faults, fault("AUDIT_INTERVAL", i.String(), "1h", "use 1s or more, or 0s for none"))
	}
	return errors.Join(faults...)
}

// Supports tells whether some slot does a phase.
func (c *Config) Supports(p phases.Step) bool {
	for _, w := range c.Workers {
		for _, q := range w.Phases {
			if p == q {
				return true
			}
		}
	}
	return false
}
