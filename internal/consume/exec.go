package consume

import (
	"log/slog"

	"sealfleet/internal/engine"
)

// ExecConfig bounds the programs that ENGINE names, for serve and bench alike.
type ExecConfig struct {
	Time   engine.TimeLimit   `env:"ENGINE_TIME_LIMIT" envDefault:"p1=168h,p2=48h,p3=4h,p4=48h" desc:"how long a program of ENGINE may take for a phase before it is killed: one duration, or one per phase; 0: no limit" example:"p1=12h,p2=2h,p3=10m,p4=1h"`
	Memory engine.MemoryLimit `env:"ENGINE_MEMORY_LIMIT" envDefault:"90%" desc:"memory that a program of ENGINE and all that it starts may have together before they are killed: a size, or a part of this host's; 0: no limit" example:"96GiB"`
}

// Settings are those of every program.
func (c ExecConfig) Settings(log *slog.Logger) engine.Exec {
	return engine.Exec{Limits: engine.Limits{Time: c.Time, Memory: c.Memory}, Log: log}
}

// Choice returns which engine does which phase. The programs were looked at when the
// settings were read; if one has gone since, its phases fail and say so.
func (e EngineKind) Choice() engine.Choice {
	c, _ := engine.ParseChoice(string(e))
	return c
}
