package gslb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"anyedge/gslb/dnssec"
)

// maxKeyFile bounds a file of keys, in bytes.
const maxKeyFile = 256 << 10

// readKeyFile returns the ring of a zone's key file, the zero one if there is no
// file. It refuses one that group or others can use.
func readKeyFile(path, zone string) (dnssec.Ring, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return dnssec.Ring{}, nil
	}
	if err != nil {
		return dnssec.Ring{}, err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return dnssec.Ring{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return dnssec.Ring{}, fmt.Errorf("%s holds private keys and is open to others (mode %04o); make it 0600", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return dnssec.Ring{}, err
	}
	if len(data) > maxKeyFile {
		return dnssec.Ring{}, fmt.Errorf("%s: more than %d bytes", path, maxKeyFile)
	}
	ring, err := dnssec.ParseRing(zone, data)
	if err != nil {
		return dnssec.Ring{}, fmt.Errorf("%s: %w", path, err)
	}
	return ring, nil
}

// writeKeyFile replaces a zone's key file.
func writeKeyFile(path string, ring dnssec.Ring) error {
	data, err := json.Marshal(ring)
	if err != nil {
		return err
	}
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFile replaces a file in one step by what write writes. It is on disk,
// readable by its owner only, when the error is nil; with an error the file is as it
// was, or new.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close() // read only
	return d.Sync()
}
