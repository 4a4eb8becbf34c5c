package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// source holds the declarations of package configs that schemas are made of.
type source struct {
	structs map[string]structDecl
	consts  map[string]string // string constants
}

type structDecl struct {
	doc    string
	fields []fieldDecl
}

type fieldDecl struct {
	name string // in Go
	doc  string
	typ  ast.Expr
	tag  reflect.StructTag
}

// readSource parses the non-test files in dir.
func readSource(dir string) (*source, error) {
	src := &source{structs: map[string]structDecl{}, consts: map[string]string{}}
	files, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range file.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				if err := src.add(gen); err != nil {
					return nil, err
				}
			}
		}
	}
	return src, nil
}

func (s *source) add(decl *ast.GenDecl) error {
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			for i, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok && decl.Tok == token.CONST && lit.Kind == token.STRING {
					text, err := strconv.Unquote(lit.Value)
					if err != nil {
						return err
					}
					s.consts[spec.Names[i].Name] = text
				}
			}
		case *ast.TypeSpec:
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			out := structDecl{doc: sentence(decl.Doc.Text())}
			for _, f := range st.Fields.List {
				if f.Tag == nil || len(f.Names) != 1 {
					continue // not a config struct
				}
				tag, err := strconv.Unquote(f.Tag.Value)
				if err != nil {
					return err
				}
				out.fields = append(out.fields, fieldDecl{f.Names[0].Name, sentence(f.Doc.Text()), f.Type, reflect.StructTag(tag)})
			}
			s.structs[spec.Name.Name] = out
		}
	}
	return nil
}

// sentence joins the lines of a comment.
func sentence(doc string) string { return strings.Join(strings.Fields(doc), " ") }

// object is a JSON object; its keys are written in sorted order.
type object = map[string]any

// schema returns the schema whose root is the named struct.
func (s *source) schema(root string) ([]byte, error) {
	defs := object{}
	top, err := s.structSchema(root, defs)
	if err != nil {
		return nil, err
	}
	kind := strings.ToLower(root)
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = "urn:anyedge:config:" + kind
	top["title"] = "anyedge " + kind + " config"
	top["$defs"] = defs
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err = enc.Encode(top)
	return b.Bytes(), err
}

// structSchema describes a struct and puts the structs it uses into defs.
func (s *source) structSchema(name string, defs object) (object, error) {
	decl, ok := s.structs[name]
	if !ok {
		return nil, fmt.Errorf("no struct %s", name)
	}
	properties, required := object{}, []string{}
	for _, f := range decl.fields {
		key := f.tag.Get("yaml")
		property, err := s.fieldSchema(f, defs)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, f.name, err)
		}
		properties[key] = property
		if f.tag.Get("required") == "true" {
			required = append(required, key)
		}
	}
	out := object{"type": "object", "description": decl.doc, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out, nil
}

// restartNotes says what a restart tag means.
var restartNotes = map[string]string{
	"change":   "A change needs a restart.",
	"presence": "To add it or to take it away needs a restart.",
}

func (s *source) fieldSchema(f fieldDecl, defs object) (object, error) {
	out, err := s.typeSchema(f.typ, defs)
	if err != nil {
		return nil, err
	}
	out["description"] = f.doc
	if note := restartNotes[f.tag.Get("restart")]; note != "" {
		out["description"] = f.doc + " " + note
	}
	_, isRef := out["$ref"]
	element := out // what enum applies to
	if items, ok := out["items"].(object); ok {
		element = items
		if f.tag.Get("required") == "true" {
			out["minItems"] = 1
		}
	}
	if words := strings.Fields(f.tag.Get("enum")); len(words) > 0 {
		element["enum"] = words
	}
	if f.tag.Get("format") == "name" {
		out["pattern"] = s.consts["namePattern"]
	}
	number := out["type"] == "integer" || out["type"] == "number"
	if low, high, ok := strings.Cut(f.tag.Get("range"), ".."); ok && number {
		out["minimum"], out["maximum"] = json.Number(low), json.Number(high)
	}
	if number && f.tag.Get("required") == "true" {
		out["minimum"] = 1
	}
	if def := f.tag.Get("default"); def != "" && !isRef {
		out["default"] = def
		if number {
			out["default"] = json.Number(def)
		}
	}
	if out["type"] == "boolean" {
		out["default"] = f.tag.Get("default") == "true"
	}
	return out, nil
}

// Patterns of the text types. Addresses have none: nobody should read the
// regular expression of an IPv6 address, and the parser says it better.
var texts = map[string]object{
	"Duration":         {"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`},
	"Size":             {"type": "string", "pattern": `^[0-9]+(B|KiB|MiB|GiB)$`},
	"Percent":          {"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$`},
	"InterfaceAddress": {"type": "string", "pattern": "/[0-9]+$"},
	"netip.Addr":       {"type": "string"},
	"netip.AddrPort":   {"type": "string"},
	"netip.Prefix":     {"type": "string", "pattern": "/[0-9]+$"},
	"string":           {"type": "string"},
	"bool":             {"type": "boolean"},
	"int":              {"type": "integer"},
	"uint16":           {"type": "integer", "minimum": 0, "maximum": 65535},
	"uint32":           {"type": "integer", "minimum": 0, "maximum": 4294967295},
	"float64":          {"type": "number"},
}

func (s *source) typeSchema(typ ast.Expr, defs object) (object, error) {
	switch t := typ.(type) {
	case *ast.StarExpr:
		return s.typeSchema(t.X, defs)
	case *ast.ArrayType:
		items, err := s.typeSchema(t.Elt, defs)
		return object{"type": "array", "items": items}, err
	case *ast.SelectorExpr:
		return s.named(fmt.Sprintf("%s.%s", t.X, t.Sel), defs)
	case *ast.Ident:
		return s.named(t.Name, defs)
	}
	return nil, fmt.Errorf("no schema for a %T", typ)
}

func (s *source) named(name string, defs object) (object, error) {
	if text, ok := texts[name]; ok {
		return maps.Clone(text), nil
	}
	if _, done := defs[name]; !done {
		defs[name] = object{} // in progress
		def, err := s.structSchema(name, defs)
		if err != nil {
			return nil, err
		}
		defs[name] = def
	}
	return object{"$ref": "#/$defs/" + name}, nil
}
