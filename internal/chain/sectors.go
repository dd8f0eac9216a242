package chain

import (
	"fmt"
	"strconv"
	"strings"

	"sealfleet/internal/phases"
)

// SectorList names sectors: by number ("7", of any miner), by id ("s-t01000-7"), or all.
type SectorList struct {
	all     bool
	numbers map[uint64]bool
	ids     map[string]bool
}

// UnmarshalText reads a list separated by commas: "all", or "7,s-t01000-9".
func (l *SectorList) UnmarshalText(text []byte) error {
	list := SectorList{numbers: map[uint64]bool{}, ids: map[string]bool{}}
	for word := range strings.SplitSeq(string(text), ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		if word == "all" {
			list.all = true
			continue
		}
		if n, err := strconv.ParseUint(word, 10, 64); err == nil {
			list.numbers[n] = true
			continue
		}
		miner, number, err := phases.ParseSectorID(word)
		if err != nil {
			return fmt.Errorf("%q is no sector: use numbers, ids such as s-t01000-7, or all", word)
		}
		list.ids[phases.SectorID(miner, number)] = true
	}
	*l = list
	return nil
}

// Has tells whether the list names the sector.
func (l *SectorList) Has(sector string, number uint64) bool {
	return l.all || l.numbers[number] || l.ids[sector]
}
