package configs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
)

// kindOf is a pointer to one of the three kinds of config.
type kindOf[T any] interface {
	*T
	prepare(*document) // fills the defaults that tags cannot state
	check(*document)   // applies the rules that tags cannot state
}

// LoadPop reads the pop config in the file at path. Relative paths in it come
// back relative to the folder of path. A config with problems is returned as
// nil with [Errors]; a file that cannot be read, with the error of the system.
func LoadPop(path string) (*Pop, error) { return load[Pop](path) }

// LoadGSLB is [LoadPop] for a DNS node's config.
func LoadGSLB(path string) (*GSLB, error) { return load[GSLB](path) }

// LoadLab is [LoadPop] for a lab config.
func LoadLab(path string) (*Lab, error) { return load[Lab](path) }

// ParsePop reads a pop config from data. The name stands for the file in
// errors. It does no I/O: paths in the config stay as they are. A config with
// problems is returned as nil with [Errors].
func ParsePop(name string, data []byte) (*Pop, error) { return parse[Pop](name, data) }

// ParseGSLB is [ParsePop] for a DNS node's config.
func ParseGSLB(name string, data []byte) (*GSLB, error) { return parse[GSLB](name, data) }

// ParseLab is [ParsePop] for a lab config.
func ParseLab(name string, data []byte) (*Lab, error) { return parse[Lab](name, data) }

// Complete fills in the defaults of a config built in code and checks it as if
// it had been read. The problems, [Errors], have no line.
func (p *Pop) Complete() error { return complete(p) }

// Complete is [Pop.Complete] for a DNS node's config.
func (g *GSLB) Complete() error { return complete(g) }

// Complete is [Pop.Complete] for a lab config.
func (l *Lab) Complete() error { return complete(l) }

func load[T any, P kindOf[T]](path string) (*T, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	cfg, err := parse[T, P](path, data)
	if err != nil {
		return nil, err
	}
	walkFiles(newDocument(""), reflect.ValueOf(cfg).Elem(), "", func(v reflect.Value, _ field, _ at) {
		v.SetString(below(filepath.Dir(path), v.String()))
	})
	return cfg, nil
}

func parse[T any, P kindOf[T]](name string, data []byte) (*T, error) {
	d := newDocument(name)
	if !d.parse(data) {
		return nil, d.err()
	}
	cfg := interpret[T, P](d)
	if err := d.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// interpret turns a parsed document into a config. The config is good only if
// d.err is nil afterwards.
func interpret[T any, P kindOf[T]](d *document) *T {
	cfg := new(T)
	d.decode(reflect.ValueOf(cfg).Elem(), d.root, "")
	judge[T, P](d, cfg)
	return cfg
}

// judge fills defaults and applies every rule.
func judge[T any, P kindOf[T]](d *document, cfg P) {
	cfg.prepare(d)
	d.apply(reflect.ValueOf((*T)(cfg)).Elem(), "")
	cfg.check(d)
}

func complete[T any, P kindOf[T]](cfg P) error {
	d := newDocument("")
	judge[T, P](d, cfg)
	return d.err()
}

// readFile returns at most one byte more than a config may have.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return data, nil
}

// below returns file as seen from the working directory, given that it was
// written in a config file in dir.
func below(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// walkFiles calls visit for every path to another file that v holds.
func walkFiles(d *document, v reflect.Value, path at, visit func(v reflect.Value, f field, path at)) {
	switch t := v.Type(); {
	case isText(t):
	case t.Kind() == reflect.Pointer && !v.IsNil():
		walkFiles(d, v.Elem(), path, visit)
	case t.Kind() == reflect.Slice:
		for i := range v.Len() {
			walkFiles(d, v.Index(i), path.index(i), visit)
		}
	case t.Kind() == reflect.Struct:
		for _, f := range d.fieldsOf(t) {
			fv, path := v.Field(f.index), path.key(f.key)
			if f.file != "" && fv.String() != "" {
				visit(fv, f, path)
			}
			walkFiles(d, fv, path, visit)
		}
	}
}
