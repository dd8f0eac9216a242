//go:build !chaos

package main

import "sealfleet/internal/engine"

// childEngine does a phase in a keeper.
func childEngine() engine.Engine { return engine.Builtin{} }
