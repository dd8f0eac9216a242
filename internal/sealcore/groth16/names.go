package groth16

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultDir is where the reference looks for parameters if nothing else is said.
const DefaultDir = "/var/tmp/filecoin-proof-parameters"

// version is that of Filecoin's parameters; it begins every file name.
const version = "v28"

// ParamsPath returns the name of a circuit's parameters in a directory; "" is DefaultDir.
func ParamsPath(dir, identifier string) string { return path(dir, identifier, ".params") }

// KeyPath returns the name of the verifying key that belongs to the parameters.
func KeyPath(dir, identifier string) string { return path(dir, identifier, ".vk") }

// MarkPath returns the name of the note that parameters and key are for development.
func MarkPath(dir, identifier string) string { return path(dir, identifier, ".development.json") }

func path(dir, identifier, extension string) string {
	if dir == "" {
		dir = DefaultDir
	}
	return filepath.Join(dir, version+"-"+filepath.Base(identifier)+extension)
}

// MissingError says which file of a circuit's parameters is not there.
type MissingError struct{ Path string }

func (e *MissingError) Error() string {
	what := "parameters are"
	if strings.HasSuffix(e.Path, ".vk") {
		what = "verifying key is"
	}
	return fmt.Sprintf("the circuit's %s missing: there is no %s; fetch Filecoin's published file of that name, "+
		"or, for development only, make it with `consumer params`", what, e.Path)
}

// Unwrap lets errors.Is(err, fs.ErrNotExist) hold.
func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// Find tells whether both files of a circuit are there, with a *MissingError if not.
func Find(dir, identifier string) error {
	for _, p := range []string{ParamsPath(dir, identifier), KeyPath(dir, identifier)} {
		if _, err := os.Stat(p); err != nil {
			return missing(p, err)
		}
	}
	return nil
}

// LoadKey reads and checks the verifying key of a circuit.
func LoadKey(dir, identifier string) (*VerifyingKey, error) {
	p := KeyPath(dir, identifier)
	data, err := readSmall(p)
	if err != nil {
		return nil, missing(p, err)
	}
	key, err := ParseVerifyingKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: get the file again", p, err)
	}
	return key, nil
}

// maxKeyLen bounds what is read as a key. The largest of Filecoin's has some 30 KiB.
const maxKeyLen = 64 << 20

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyLen || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it has %d bytes, which no key has", path, ErrMalformed, info.Size())
	}
	return os.ReadFile(path)
}

// Load opens the parameters of a circuit and checks that its verifying key belongs to
// them. The parameters must be closed.
func Load(dir, identifier string) (*Params, error) {
	path := ParamsPath(dir, identifier)
	p, err := OpenParams(path)
	if err != nil {
		return nil, missing(path, err)
	}
	key, err := LoadKey(dir, identifier)
	if err == nil && !p.SameKey(key) {
		err = fmt.Errorf("%s and %s were not made together: get both files again", path, KeyPath(dir, identifier))
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &MissingError{path}
	}
	return err
}
