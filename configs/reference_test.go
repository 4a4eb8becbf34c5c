package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
)

// kinds lists what tests run for every kind of config.
var kinds = []struct {
	name   string
	config reflect.Type
	load   func(path string) (any, error)
	parse  func(name string, data []byte) (any, error)
}{
	{KindPop, reflect.TypeFor[Pop](),
		func(p string) (any, error) { return LoadPop(p) },
		func(n string, data []byte) (any, error) { return ParsePop(n, data) }},
	{KindGSLB, reflect.TypeFor[GSLB](),
		func(p string) (any, error) { return LoadGSLB(p) },
		func(n string, data []byte) (any, error) { return ParseGSLB(n, data) }},
	{KindLab, reflect.TypeFor[Lab](),
		func(p string) (any, error) { return LoadLab(p) },
		func(n string, data []byte) (any, error) { return ParseLab(n, data) }},
}

func referenceFile(kind string) string { return filepath.Join("reference", kind+".yaml") }

// referenceFiles are those of a kind: keys that exclude each other are in files
// of their own.
func referenceFiles(t *testing.T, kind string) []string {
	t.Helper()
	more, err := filepath.Glob(filepath.Join("reference", kind+"-*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return append(more, referenceFile(kind))
}

func TestReferenceIsValid(t *testing.T) {
	for _, k := range kinds {
		for _, file := range referenceFiles(t, k.name) {
			if _, err := k.load(file); err != nil {
				t.Errorf("%s:\n%v", file, err)
			}
		}
	}
}

// TestReferenceShowsEveryKey keeps the reference files complete.
func TestReferenceShowsEveryKey(t *testing.T) {
	for _, k := range kinds {
		shown := map[string]bool{}
		for _, file := range referenceFiles(t, k.name) {
			shownKeys(readNode(t, file), "", shown)
		}
		d := newDocument("")
		for _, path := range allKeys(d, k.config, "") {
			if !shown[path] {
				t.Errorf("no reference file of a %s shows %s", k.name, path)
			}
		}
	}
}

// TestReferenceShowsDefaults compares what the reference files state with the
// tags: a file that shows another value has to say what the default is.
func TestReferenceShowsDefaults(t *testing.T) {
	for _, k := range kinds {
		for _, file := range referenceFiles(t, k.name) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(data), "\n")
			d := newDocument("")
			if !d.parse(data) {
				t.Fatal(d.err())
			}
			compareDefaults(t, d, k.config, d.root, "", func(n *yaml.Node) bool {
				return strings.Contains(lines[n.Line-1], "efault")
			})
		}
	}
}

func compareDefaults(t *testing.T, d *document, typ reflect.Type, n *yaml.Node, path at, saysDefault func(*yaml.Node) bool) {
	switch {
	case n == nil, isText(typ):
	case typ.Kind() == reflect.Pointer:
		compareDefaults(t, d, typ.Elem(), n, path, saysDefault)
	case typ.Kind() == reflect.Slice && len(n.Content) > 0:
		compareDefaults(t, d, typ.Elem(), n.Content[0], path.index(0), saysDefault) // the first shows all keys
	case typ.Kind() == reflect.Struct:
		for _, f := range d.fieldsOf(typ) {
			value := child(n, f.key)
			if value != nil && f.def != "" && value.Value != f.def && !saysDefault(value) {
				t.Errorf("%s is %s in the reference, its default is %s", path.key(f.key), value.Value, f.def)
			}
			compareDefaults(t, d, typ.Field(f.index).Type, value, path.key(f.key), saysDefault)
		}
	}
}

// allKeys lists the paths of all keys that a config type has, lists as "[]".
func allKeys(d *document, t reflect.Type, path string) []string {
	switch {
	case isText(t):
	case t.Kind() == reflect.Pointer:
		return allKeys(d, t.Elem(), path)
	case t.Kind() == reflect.Slice:
		return allKeys(d, t.Elem(), path+"[]")
	case t.Kind() == reflect.Struct:
		var keys []string
		for _, f := range d.fieldsOf(t) {
			key := strings.TrimPrefix(path+"."+f.key, ".")
			keys = append(keys, key)
			keys = append(keys, allKeys(d, t.Field(f.index).Type, key)...)
		}
		return keys
	}
	return nil
}

// shownKeys collects the paths of all keys below n, in the form of allKeys.
func shownKeys(n *yaml.Node, path string, shown map[string]bool) {
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			shownKeys(c, path+"[]", shown)
		case n.Kind == yaml.MappingNode && i%2 == 0:
			key := strings.TrimPrefix(path+"."+c.Value, ".")
			shown[key] = true
			shownKeys(n.Content[i+1], key, shown)
		}
	}
}

func readNode(t *testing.T, path string) *yaml.Node {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := newDocument(path)
	if !d.parse(data) {
		t.Fatal(d.err())
	}
	return d.root
}

func TestDefaultLabIsTheReference(t *testing.T) {
	reference, err := LoadLab(referenceFile(KindLab))
	if err != nil {
		t.Fatal(err)
	}
	if got := DefaultLab(); !reflect.DeepEqual(got, reference) {
		t.Errorf("DefaultLab = %+v\nreference file says %+v", got, reference)
	}
	empty, err := ParseLab("lab.yaml", []byte("{}"))
	if err != nil || !reflect.DeepEqual(empty, reference) {
		t.Errorf("an empty lab config is not the default: %+v, %v", empty, err)
	}
}
