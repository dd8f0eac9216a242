// Package runbooks holds a page for each alarm: what it means, how to look, and the mend.
package runbooks

import "embed"

// Pages are the pages, by the file name that alerts.Page gives.
//
//go:embed *.md
var Pages embed.FS
