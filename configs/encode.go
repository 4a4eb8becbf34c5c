package configs

import (
	"fmt"
	"reflect"

	yaml "go.yaml.in/yaml/v4"
)

// Encode writes a *[Pop], *[GSLB] or *[Lab] as the text of a config file.
// Fields at zero are left out, since that is how a file says so: parsing the
// text of a complete config gives the same config again. Paths are written as
// they are, so a relative one means a file below the folder that the text goes
// to. It panics on any other type.
func Encode(config any) ([]byte, error) {
	switch config.(type) {
	case *Pop, *GSLB, *Lab:
	default:
		panic(fmt.Sprintf("configs: Encode of a %T", config))
	}
	data, err := yaml.Dump(newDocument("").encode(reflect.ValueOf(config)))
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	return data, nil
}

// encode is the inverse of decode.
func (d *document) encode(v reflect.Value) *yaml.Node {
	t := v.Type()
	switch {
	case isText(t):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: getScalar(v)}
	case t.Kind() == reflect.Pointer:
		return d.encode(v.Elem())
	case t.Kind() == reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, f := range d.fieldsOf(t) {
			if fv := v.Field(f.index); !fv.IsZero() {
				key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.key}
				n.Content = append(n.Content, key, d.encode(fv))
			}
		}
		return n
	case t.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			n.Content = append(n.Content, d.encode(v.Index(i)))
		}
		return n
	}
	tag := "!!int"
	switch t.Kind() {
	case reflect.String:
		tag = "!!str"
	case reflect.Bool:
		tag = "!!bool"
	case reflect.Float64:
		tag = "!!float"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: getScalar(v)}
}
