package configs

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	yaml "go.yaml.in/yaml/v4"
)

// decode stores n in v and reports all that does not fit. Its recursion is as
// deep as the type of v, which is never recursive, whatever the file says.
func (d *document) decode(v reflect.Value, n *yaml.Node, path at) {
	if n = resolve(n); isNull(n) {
		return
	}
	t := v.Type()
	switch {
	case isText(t):
		d.decodeScalar(v, n, path)
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		d.decode(v.Elem(), n, path)
	case t.Kind() == reflect.Struct:
		d.decodeStruct(v, n, path)
	case t.Kind() == reflect.Slice:
		d.decodeSlice(v, n, path)
	default:
		d.decodeScalar(v, n, path)
	}
}

// spend counts one key or list element at n against maxValues. It reports false
// when the file must not be read on.
func (d *document) spend(n *yaml.Node, path at) bool {
	d.values++
	if d.values == maxValues+1 {
		d.reject(n, path, "more than %d keys and list elements; what an alias stands for counts each time", maxValues)
	}
	return d.values <= maxValues
}

func (d *document) decodeStruct(v reflect.Value, n *yaml.Node, path at) {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		d.rejectKind(v.Type(), n, path)
		return
	}
	fields := d.fieldsOf(v.Type())
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if !d.spend(key, path) {
			return
		}
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			d.reject(key, path.key("<<"), "merge keys are not supported; alias whole values, or write the keys out")
			continue
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.add(key.Line, key.Column, path, "a key must be a word, not "+found(key))
			continue
		}
		if first, again := lines[key.Value]; again {
			d.add(key.Line, key.Column, path.key(show(key.Value)), fmt.Sprintf("this key was given before, on line %d", first))
			continue
		}
		lines[key.Value] = key.Line
		if f := fieldNamed(fields, key.Value); f != nil {
			d.decode(v.Field(f.index), value, path.key(f.key))
			continue
		}
		d.rejectUnknown(fields, key, path)
	}
}

func fieldNamed(fields []field, key string) *field {
	for i := range fields {
		if fields[i].key == key {
			return &fields[i]
		}
	}
	return nil
}

// rejectUnknown reports key, and the field it probably stands for. That field
// counts as unread, lest it be called missing as well.
func (d *document) rejectUnknown(fields []field, key *yaml.Node, path at) {
	if len(d.errs) >= maxErrors {
		return
	}
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	if best := nearest(key.Value, keys); best != "" {
		d.unread[path.key(best)] = true
	}
	d.reject(key, path.key(show(key.Value)), "unknown key%s", suggest(key.Value, keys))
}

func (d *document) decodeSlice(v reflect.Value, n *yaml.Node, path at) {
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		d.rejectKind(v.Type(), n, path)
		return
	}
	for i, element := range n.Content {
		if !d.spend(element, path) {
			return
		}
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if isNull(resolve(element)) {
			d.reject(element, path.index(i), "want %s, got nothing", wanted(v.Type().Elem()))
			continue
		}
		d.decode(v.Index(i), element, path.index(i))
	}
}

func (d *document) decodeScalar(v reflect.Value, n *yaml.Node, path at) {
	t, tag := v.Type(), n.ShortTag()
	switch {
	case n.Kind != yaml.ScalarNode || !tagFits(t, tag):
		d.rejectKind(t, n, path)
	case strings.ContainsFunc(n.Value, unicode.IsControl):
		d.reject(n, path, "control characters are not allowed")
	default:
		if err := setScalar(v, n.Value); err != nil {
			d.reject(n, path, "%v", err)
		}
	}
}

// tagFits reports whether a scalar with the given YAML tag may stand for a t.
// An unquoted number is no text: 1.20 would be the text "1.20" or "1.2",
// depending on who wrote the file.
func tagFits(t reflect.Type, tag string) bool {
	number := tag == "!!int" || tag == "!!float"
	text := tag == "!!str" || tag == "!!timestamp" // an unquoted date is no more than a text
	switch {
	case isText(t):
		return text || number || tag == "!!bool" // setScalar says what is wrong with them
	case t.Kind() == reflect.String:
		return text
	case t.Kind() == reflect.Bool:
		return tag == "!!bool"
	}
	return number
}

func (d *document) rejectKind(t reflect.Type, n *yaml.Node, path at) {
	hint := ""
	switch tag := n.ShortTag(); {
	case t.Kind() != reflect.String:
	case tag == "!!int", tag == "!!float", tag == "!!bool":
		hint = "; write it in quotes: " + quote(n.Value)
	}
	d.reject(n, path, "want %s, got %s%s", wanted(t), found(n), hint)
}

// found describes what n holds, for "got …".
func found(n *yaml.Node) string {
	switch tag := n.ShortTag(); tag {
	case "!!map":
		return "a mapping"
	case "!!seq":
		return "a list"
	case "!!int", "!!float":
		return "the number " + show(n.Value)
	case "!!bool":
		return n.Value
	case "!!null":
		return "nothing"
	case "!!str", "!!timestamp":
		return "the text " + show(n.Value)
	default:
		return "a value tagged " + show(tag)
	}
}
