package main

import (
	"testing"

	"sealfleet/internal/settings/settingstest"
)

func TestReadmeHasTheSettings(t *testing.T) {
	settingstest.CheckTable(t, "../../README.md", "dispatcher settings", &serveConfig{})
}
