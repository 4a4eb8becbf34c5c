package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// The kinds of config.
const (
	KindPop  = "pop"
	KindGSLB = "gslb"
	KindLab  = "lab"
)

// Check reads the config file at path, of any kind, and looks at the files
// that it names: each must be a regular file that this process can read, and a
// file with secrets must be closed to group and others. It returns the kind,
// told by the keys of the file, or "" when they do not tell. The error is nil,
// [Errors] with every problem, or the system's when path cannot be read.
func Check(path string) (kind string, err error) {
	data, err := readFile(path)
	if err != nil {
		return "", err
	}
	d := newDocument(path)
	if !d.parse(data) {
		return "", d.err()
	}
	var cfg any
	switch kind = d.kind(); kind {
	case KindPop:
		cfg = interpret[Pop](d)
	case KindGSLB:
		cfg = interpret[GSLB](d)
	case KindLab:
		cfg = interpret[Lab](d)
	default:
		d.add(d.root.Line, d.root.Column, "", `cannot tell the kind of this config: a pop has "listeners", a DNS node has "listen", a lab has "network", "pops" or "rate"`)
		return "", d.err()
	}
	walkFiles(d, reflect.ValueOf(cfg).Elem(), "", func(v reflect.Value, f field, at at) {
		name := below(filepath.Dir(path), v.String())
		if f.file == "state" && toBeWritten(name) {
			return
		}
		if message := checkFile(name, f.file != "public"); message != "" {
			d.report(at, "%s", message)
		}
	})
	return kind, d.err()
}

// kind returns the kind that shares most root keys with the document, or "".
// Every key of a lab is optional, so it wins a tie.
func (d *document) kind() string {
	if d.root.Kind != yaml.MappingNode {
		return ""
	}
	kinds := []struct {
		name string
		t    reflect.Type
	}{
		{KindLab, reflect.TypeFor[Lab]()},
		{KindPop, reflect.TypeFor[Pop]()},
		{KindGSLB, reflect.TypeFor[GSLB]()},
	}
	best, most, tie := "", 0, false
	for _, k := range kinds {
		n := 0
		for _, f := range d.fieldsOf(k.t) {
			if child(d.root, f.key) != nil {
				n++
			}
		}
		switch {
		case n > most:
			best, most, tie = k.name, n, false
		case n == most:
			tie = best != KindLab
		}
	}
	if tie {
		return ""
	}
	return best
}

// checkFile returns what is wrong with a file that a config names, or "".
func checkFile(path string, secret bool) string {
	info, err := os.Stat(path)
	if err != nil {
		return reason(path, err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would block
		return fmt.Sprintf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return reason(path, err)
	}
	f.Close()
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 {
		return fmt.Sprintf("%s holds a secret and is open to others (mode %04o); run chmod 600 on it", path, mode)
	}
	return ""
}

// toBeWritten reports whether a file is missing in a folder that exists.
func toBeWritten(path string) bool {
	_, err := os.Stat(path)
	folder, folderErr := os.Stat(filepath.Dir(path))
	return errors.Is(err, fs.ErrNotExist) && folderErr == nil && folder.IsDir()
}

// reason states a file system error without repeating the call.
func reason(path string, err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Sprintf("%s: %s", path, strings.TrimSpace(err.Error()))
}
