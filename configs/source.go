package configs

import (
	"fmt"
	"path/filepath"
	"reflect"
)

// Source is the text that a config was made of. It places remarks that need
// more than the config itself, such as the rest of the fleet. It is immutable.
type Source struct {
	doc  *document
	data []byte
}

// ReadPop is [LoadPop], and returns the text that was read as well.
func ReadPop(path string) (*Pop, *Source, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	return InterpretPop(path, data)
}

// InterpretPop is [ReadPop] for data that the file at path does not hold, or
// not yet. It does no I/O.
func InterpretPop(path string, data []byte) (*Pop, *Source, error) {
	d := newDocument(path)
	if !d.parse(data) {
		return nil, nil, d.err()
	}
	cfg := interpret[Pop](d)
	if err := d.err(); err != nil {
		return nil, nil, err
	}
	walkFiles(newDocument(""), reflect.ValueOf(cfg).Elem(), "", func(v reflect.Value, _ field, _ at) {
		v.SetString(below(filepath.Dir(path), v.String()))
	})
	return cfg, &Source{d, data}, nil
}

// File returns the name of the file.
func (s *Source) File() string { return s.doc.name }

// Data returns the text, which is not to be changed.
func (s *Source) Data() []byte { return s.data }

// Problem returns a remark about the value at a path such as "bgp.prefixes". A
// path that the text does not have stands where it would be added.
func (s *Source) Problem(path, format string, args ...any) Error {
	e := Error{File: s.doc.name, Path: path, Message: fmt.Sprintf(format, args...)}
	if n, _ := s.doc.find(at(path)); n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	return e
}
