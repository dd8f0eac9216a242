package main

import (
	"testing"

	"sealfleet/internal/consume"
	"sealfleet/internal/settings/settingstest"
)

func TestReadmeHasTheSettings(t *testing.T) {
	settingstest.CheckTable(t, "../../README.md", "consumer settings", &consume.Config{})
}
