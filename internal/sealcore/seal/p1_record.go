package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/sdr"
)

// RecordName is the file in a sector's cache in which p1 records what it has finished. It is
// there from p1's first result to its end.
const RecordName = ".sealfleet-p1.json"

// record is the content of that file.
type record struct {
	Version int  `json:"v"`
	Data    bool `json:"data"` // the unsealed file, its copy and tree D are whole
	// Whose labels they are. The replica id stands for prover, sector, ticket and data; the rest
	// selects the graph.
	ReplicaID  string `json:"replica_id"`
	PoRepID    string `json:"porep_id"`
	APIVersion string `json:"api_version"`
	SectorSize uint64 `json:"sector_size"`
	Layers     int    `json:"layers"`
	// SHA-256 of the layers that are finished, by number.
	Labels map[int]string `json:"labels_sha256"`

	mu   sync.Mutex
	path string
}

const recordVersion = 1

// readRecord reads what an earlier run left. What cannot be understood counts as nothing: then
// all is computed anew.
func readRecord(cache string) (*record, error) {
	path := filepath.Join(cache, RecordName)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	r := &record{}
	if err != nil || json.Unmarshal(data, r) != nil || r.Version != recordVersion {
		r = &record{Version: recordVersion}
	}
	r.path = path
	return r, nil
}

// bind makes it the record of a replica. It returns the layers that are recorded of this one.
func (r *record) bind(p sealcore.Params, replicaID sealcore.Domain) (layers map[int]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := record{
		ReplicaID: hex.EncodeToString(replicaID[:]), PoRepID: hex.EncodeToString(p.PoRepID[:]),
		APIVersion: string(p.APIVersion), SectorSize: p.SectorSize, Layers: p.Layers,
	}
	if r.ReplicaID == is.ReplicaID && r.PoRepID == is.PoRepID && r.APIVersion == is.APIVersion &&
		r.SectorSize == is.SectorSize && r.Layers == is.Layers {
		layers = r.Labels
	}
	r.ReplicaID, r.PoRepID, r.APIVersion, r.SectorSize, r.Layers = is.ReplicaID, is.PoRepID, is.APIVersion, is.SectorSize, is.Layers
	r.Labels = map[int]string{}
	return layers
}

// addData records that unsealed, sealed and tree D are whole.
func (r *record) addData() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Data = true
	return r.write()
}

// addLayer records a finished layer.
func (r *record) addLayer(layer int, sum sealcore.Domain) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Labels[layer] = hex.EncodeToString(sum[:])
	return r.write()
}

// write must be called with the lock held.
func (r *record) write() error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := durable.Write(r.path, append(data, '\n')); err != nil {
		return fmt.Errorf("record what p1 has finished: %w", err)
	}
	return nil
}

// keep goes on with a layer of an earlier run. It is in the file already.
func (r *record) keep(layer int, sum string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Labels[layer] = sum
}

// forgetData says that unsealed, sealed and tree D are about to change.
func (r *record) forgetData() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Data {
		return nil
	}
	r.Data = false
	return r.write()
}

// remove ends the record.
func (r *record) remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of p1: %w", err)
	}
	return nil
}

// followHash hashes memory while it is written: follow tells how much of it is final, and sum
// ends the hashing and returns the hash of all that was followed. The memory may be a file's; sum
// fails with sdr.ErrFault if it cannot be read.
func followHash(memory []byte) (follow func(size uint64), sum func() (sealcore.Domain, error)) {
	sizes := make(chan uint64, 1)
	var result sealcore.Domain
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(interface{ Addr() uintptr }); !ok {
					panic(r)
				}
				err = sdr.ErrFault
			}
		}()
		h := sha256.New()
		var at uint64
		for size := range sizes {
			h.Write(memory[at:size])
			at = size
		}
		result = sealcore.Domain(h.Sum(nil))
	}()
	follow = func(size uint64) {
		select {
		case <-sizes: // it has not come to that yet: give it the new one instead
		default:
		}
		select {
		case sizes <- size:
		case <-done: // by a fault
		}
	}
	return follow, func() (sealcore.Domain, error) { close(sizes); <-done; return result, err }
}
