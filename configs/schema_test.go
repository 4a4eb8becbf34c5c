package configs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
)

type object = map[string]any

func loadSchema(t *testing.T, kind string) object {
	t.Helper()
	data, err := Schema(kind)
	if err != nil {
		t.Fatal(err)
	}
	var root object
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestSchemaAcceptsReference runs the reference files through the keywords
// that the schemas use.
func TestSchemaAcceptsReference(t *testing.T) {
	for _, k := range kinds {
		for _, file := range referenceFiles(t, k.name) {
			v := validator{root: loadSchema(t, k.name)}
			v.validate(v.root, readNode(t, file), "")
			for _, p := range v.problems {
				t.Errorf("%s: %s", file, p)
			}
		}
	}
}

// TestSchemaRefuses proves that the check above can fail.
func TestSchemaRefuses(t *testing.T) {
	v := validator{root: loadSchema(t, KindPop)}
	d := newDocument("")
	d.parse([]byte(`
listeners: []
log: {level: loud, colour: true}
health: {rise: 0, hold_down: 5}
pools: {}
tls: {tickets: {rotate: soon}}
`))
	v.validate(v.root, d.root, "")
	want := []string{
		"listeners: fewer than 1", "log.level: not one of", "log.colour: unknown", "health.rise: below 1",
		"health.hold_down: not a string", "pools: not a array", "tls.tickets.rotate: does not match", ": lacks routes",
	}
	slices.Sort(want)
	slices.Sort(v.problems)
	if !slices.Equal(v.problems, want) {
		t.Errorf("got  %q\nwant %q", v.problems, want)
	}
}

// TestSchemaHasEveryKey compares schema and structs in both directions.
func TestSchemaHasEveryKey(t *testing.T) {
	for _, k := range kinds {
		root := loadSchema(t, k.name)
		var got []string
		schemaKeys(root, root, "", &got)
		want := allKeys(newDocument(""), k.config, "")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the struct %q", k.name, got, want)
		}
	}
}

func TestSchemaOfUnknownKind(t *testing.T) {
	if _, err := Schema("dns"); err == nil || !strings.Contains(err.Error(), "gslb") {
		t.Errorf("got %v, want an error that names the kinds", err)
	}
}

func TestSchemaPatternsAreTheParsers(t *testing.T) {
	defs := loadSchema(t, KindPop)["$defs"].(object)
	name := defs["Node"].(object)["properties"].(object)["name"].(object)
	if name["pattern"] != namePattern {
		t.Errorf("pattern of a name is %v, the parser's %s", name["pattern"], namePattern)
	}
}

func schemaKeys(root, s object, path string, keys *[]string) {
	s = deref(root, s)
	if items, ok := s["items"].(object); ok {
		schemaKeys(root, items, path+"[]", keys)
	}
	properties, _ := s["properties"].(object)
	for key, p := range properties {
		key = strings.TrimPrefix(path+"."+key, ".")
		*keys = append(*keys, key)
		schemaKeys(root, p.(object), key, keys)
	}
}

func deref(root, s object) object {
	if ref, ok := s["$ref"].(string); ok {
		return root["$defs"].(object)[strings.TrimPrefix(ref, "#/$defs/")].(object)
	}
	return s
}

// validator knows the JSON Schema keywords that schemagen writes. It fails on
// any other.
type validator struct {
	root     object
	problems []string
}

func (v *validator) fail(path, format string, args ...any) {
	v.problems = append(v.problems, path+": "+fmt.Sprintf(format, args...))
}

func (v *validator) validate(s object, n *yaml.Node, path string) {
	if ref := deref(v.root, s); !reflect.DeepEqual(ref, s) {
		v.validate(ref, n, path)
		return
	}
	for keyword, arg := range s {
		switch keyword {
		case "$schema", "$id", "$defs", "title", "description", "default":
		case "type":
			tags := map[string][]string{
				"object": {"!!map"}, "array": {"!!seq"}, "string": {"!!str"}, "boolean": {"!!bool"},
				"integer": {"!!int"}, "number": {"!!int", "!!float"},
			}
			if !slices.Contains(tags[arg.(string)], n.ShortTag()) {
				v.fail(path, "not a %s", arg)
			}
		case "properties":
			v.validateKeys(arg.(object), n, path)
		case "additionalProperties":
			if arg != false {
				v.fail(path, "additionalProperties is %v", arg)
			}
		case "required":
			for _, key := range arg.([]any) {
				if n.Kind == yaml.MappingNode && child(n, key.(string)) == nil {
					v.fail(path, "lacks %s", key)
				}
			}
		case "items":
			if n.Kind == yaml.SequenceNode {
				for _, c := range n.Content {
					v.validate(arg.(object), c, path+"[]")
				}
			}
		case "minItems":
			if n.Kind == yaml.SequenceNode && float64(len(n.Content)) < arg.(float64) {
				v.fail(path, "fewer than %v", arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), any(n.Value)) {
				v.fail(path, "not one of")
			}
		case "pattern":
			if n.ShortTag() == "!!str" && !regexp.MustCompile(arg.(string)).MatchString(n.Value) {
				v.fail(path, "does not match")
			}
		case "minimum", "maximum":
			var number float64
			if err := json.Unmarshal([]byte(n.Value), &number); err != nil {
				v.fail(path, "%v", err)
			} else if keyword == "minimum" && number < arg.(float64) {
				v.fail(path, "below %v", arg)
			} else if keyword == "maximum" && number > arg.(float64) {
				v.fail(path, "above %v", arg)
			}
		default:
			v.fail(path, "keyword %s", keyword)
		}
	}
}

func (v *validator) validateKeys(properties object, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i].Value
		name := strings.TrimPrefix(path+"."+key, ".")
		if p, ok := properties[key].(object); ok {
			v.validate(p, n.Content[i+1], name)
		} else {
			v.fail(name, "unknown")
		}
	}
}
