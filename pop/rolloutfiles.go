package pop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"anyedge/pop/rollout"
)

// configFiles are a node's config file and what a rollout keeps beside it:
//
//	FILE            the config in force, whoever put it there
//	FILE.last-good  the one before the rollout
//	FILE.rollout    a mark: the rollout that was begun, until its end is known
//
// The mark is written before anything changes and deleted after everything has,
// so a process that ends in between leaves word of it. Every file is replaced by
// renaming, and is on disk before the next one is touched.
type configFiles struct {
	file string
	// source is the text of the config in force; nil if it is not known, and
	// then the node takes no part in rollouts.
	source []byte
	mark   mark // zero if there is none
}

// mark is what FILE.rollout holds.
type mark struct {
	Generation uint64 `json:"generation"`
	Config     string `json:"config"` // sum of the new document
}

// openConfigFiles reads the mark that an earlier process may have left.
func openConfigFiles(file string, source []byte) (*configFiles, error) {
	c := &configFiles{file: file, source: source}
	data, err := os.ReadFile(c.markFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err == nil:
		err = json.Unmarshal(data, &c.mark)
	}
	if err != nil {
		return nil, fmt.Errorf("mark of a rollout: %s: %w", c.markFile(), err)
	}
	return c, nil
}

func (c *configFiles) markFile() string     { return c.file + ".rollout" }
func (c *configFiles) lastGoodFile() string { return c.file + ".last-good" }

// sum names the config in force; empty if it is not known.
func (c *configFiles) sum() string {
	if c.source == nil {
		return ""
	}
	return rollout.Sum(c.source)
}

// begin makes sure that a document can be put in place, and that the way back
// is there.
func (c *configFiles) begin(generation uint64, document []byte) error {
	there, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, c.source) {
		return fmt.Errorf("%s was changed and not reloaded; a rollout would overwrite the change", c.file)
	}
	m := mark{generation, rollout.Sum(document)}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := replaceFile(c.lastGoodFile(), c.source); err != nil {
		return err
	}
	if err := replaceFile(c.markFile(), data); err != nil {
		return err
	}
	c.mark = m
	return nil
}

// put makes text, which is in force, the config file.
func (c *configFiles) put(text []byte) error {
	c.source = text
	return replaceFile(c.file, text)
}

// lastGood returns the config from before the rollout.
func (c *configFiles) lastGood() ([]byte, error) { return os.ReadFile(c.lastGoodFile()) }

// end deletes the mark.
func (c *configFiles) end() error {
	if err := os.Remove(c.markFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.mark = mark{}
	return syncDir(c.file)
}

// replaceFile writes a file whole or not at all. It keeps the mode of the one
// that was there.
func replaceFile(file string, data []byte) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(file)
}

// syncDir makes the names in a file's folder durable.
func syncDir(file string) error {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
