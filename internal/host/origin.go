package host

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Every share has a directory of the fleet's own, which names the file system that it
// lies on, whatever host it is seen from: device numbers differ between the hosts of an
// export, and between two boots of one.
const (
	fleetDir   = ".sealfleet"
	deviceFile = "device.json"
	// OriginFile is what p1's host leaves in a sector's cache directory.
	OriginFile = "sealfleet-origin.json"
)

// Device names the file system of a share.
type Device struct {
	ID     string    `json:"id"` // random, made once
	Host   string    `json:"host"`
	Source string    `json:"source"` // as its maker saw it, for people
	Type   string    `json:"type"`
	Made   time.Time `json:"made"`
}

// ErrDeviceChanged says that a sector's directory is not on the file system that p1 wrote to.
var ErrDeviceChanged = errors.New("not the file system that p1 wrote to")

// ShareDevice returns the identity of a share (<local_dir>/nfs/<ip>), and makes one if it
// has none. Of several makers at once one wins, and all return its identity.
func ShareDevice(share, hostName string) (Device, error) {
	d, err := readDevice(filepath.Join(share, fleetDir, deviceFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if err := MakeDir(filepath.Join(share, fleetDir)); err != nil {
		return Device{}, err
	}
	d = Device{ID: rand.Text(), Host: hostName, Made: time.Now().UTC()}
	if m, err := MountOf(share); err == nil {
		d.Source, d.Type = m.Source, m.Type
	}
	path := filepath.Join(share, fleetDir, deviceFile)
	tmp := path + "." + d.ID
	if err := writeJSON(tmp, d); err != nil {
		return Device{}, err
	}
	defer os.Remove(tmp)
	// A link fails if the name is taken, on NFS too; a rename would replace the winner's.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return Device{}, Mend(path, err)
	}
	return readDevice(path)
}

// RecordOrigin writes into a sector's cache directory which file system p1 wrote to.
func RecordOrigin(share, cache, hostName string) error {
	d, err := ShareDevice(share, hostName)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(cache, OriginFile), d)
}

// CheckOrigin tells whether a sector's cache directory is still on the file system that p1
// wrote to: nil, or an error that wraps ErrDeviceChanged, or fs.ErrNotExist if p1 left no
// record (a sector of an earlier release, or no sector at all).
func CheckOrigin(share, cache string) error {
	was, err := readDevice(filepath.Join(cache, OriginFile))
	if err != nil {
		return err
	}
	is, err := readDevice(filepath.Join(share, fleetDir, deviceFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: p1 wrote to %s of %s, and %s has no identity; is the right file system mounted?", cache, ErrDeviceChanged, was.Source, was.Host, share)
	case err != nil:
		return err
	case is.ID != was.ID:
		return fmt.Errorf("%s: %w: p1 wrote to %s of %s (id %s), this is %s of %s (id %s)", cache, ErrDeviceChanged,
			was.Source, was.Host, was.ID, is.Source, is.Host, is.ID)
	}
	var s, c unix.Stat_t
	if err := errors.Join(unix.Stat(share, &s), unix.Lstat(cache, &c)); err != nil {
		return fmt.Errorf("%s: %w", cache, err)
	}
	if s.Dev != c.Dev || c.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s: %w: it is a link, or lies on another device than %s", cache, ErrDeviceChanged, share)
	}
	return nil
}

func readDevice(path string) (Device, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Device{}, err
	}
	var d Device
	if err := json.Unmarshal(data, &d); err != nil || d.ID == "" {
		return Device{}, fmt.Errorf("%s is damaged: %w", path, errors.Join(err, errors.New("no identity in it")))
	}
	return d, nil
}

// writeJSON writes a small file that is whole or not there.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, append(data, '\n'), 0o644, renameio.WithTempDir(dir)); err != nil {
		return Mend(path, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MountOf returns the mount that a path lies on. It resolves links, so it can hang with the mount.
func MountOf(path string) (Mount, error) {
	list, err := Mounts()
	if err != nil {
		return Mount{}, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Mount{}, err
	}
	m, found := mountOf(list, real)
	if !found {
		return Mount{}, fmt.Errorf("%s is below none of this process's mounts", path)
	}
	return m, nil
}
