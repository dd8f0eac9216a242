package main

import (
	"testing"

	"sealfleet/internal/runbookstest"
)

// What a runbook, the operations' page or an alarm tells people to type must be there.
func TestDocumentedCommandsExist(t *testing.T) { runbookstest.CommandsExist(t, newRoot, 30) }
