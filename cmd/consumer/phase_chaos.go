//go:build chaos

package main

import (
	"sealfleet/internal/chaos/ledger"
	"sealfleet/internal/engine"
)

// childEngine does a phase in a keeper, and writes that down for the chaos tests.
func childEngine() engine.Engine { return ledger.Engine{Engine: engine.Builtin{}} }
