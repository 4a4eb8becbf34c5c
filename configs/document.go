package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

// Bounds on what a file may cost. They are far above any real config: 4 MiB
// hold some 50,000 backends.
const (
	maxFileBytes = 4 << 20
	maxDepth     = 64      // nesting of the text
	maxValues    = 1 << 18 // keys and list elements, aliased ones counted each time
	maxErrors    = 1000
)

// at is the path of a value: keys and list positions from the root.
type at string

func (p at) key(k string) at {
	if p == "" {
		return at(k)
	}
	return p + "." + at(k)
}

func (p at) index(i int) at { return p + at("["+strconv.Itoa(i)+"]") }

// parent cuts the last step off; the parent of a root key is "".
func (p at) parent() at {
	return p[:max(0, strings.LastIndexAny(string(p), ".["))]
}

// document collects the problems of one config while it is read and checked.
// It knows the place of every value, so that rules need to name a path only.
type document struct {
	name   string
	root   *yaml.Node // nil: a config built in code, nothing has a place
	errs   Errors
	values int // keys and list elements read so far

	// unread are the paths whose value could not be read. What rules say about
	// them and about anything below them would only be noise.
	unread map[at]bool
	// judged are the paths that a rule has complained about; once is enough.
	judged map[at]bool
	fields map[reflect.Type][]field
}

func newDocument(name string) *document {
	return &document{
		name:   name,
		unread: map[at]bool{},
		judged: map[at]bool{},
		fields: map[reflect.Type][]field{},
	}
}

// parse reads data into d.root. It reports false, with the reason in d.errs,
// when there is no single well-formed document in data.
func (d *document) parse(data []byte) bool {
	if len(data) > maxFileBytes {
		d.add(1, 1, "", fmt.Sprintf("larger than %v", Size(maxFileBytes)))
		return false
	}
	if line, column, message := badText(data); message != "" {
		d.add(line, column, "", message)
		return false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(limits{}))
	if err != nil {
		d.add(1, 1, "", err.Error())
		return false
	}
	var first, second yaml.Node
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		d.add(1, 1, "", "the file is empty")
		return false
	} else if err != nil {
		d.addSyntax(err)
		return false
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.add(second.Line, second.Column, "", "a second document begins; a config is one document")
		return false
	case !errors.Is(err, io.EOF):
		d.addSyntax(err)
		return false
	}
	d.root = first.Content[0]
	if isNull(d.root) {
		d.add(1, 1, "", "the file is empty")
		return false
	}
	return true
}

// limits bounds the parser. Aliases are bounded by maxValues instead, since
// the parser does not expand them.
type limits struct{}

// CheckDepth implements [yaml.LoaderLimitsPlugin].
func (limits) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	return nil
}

// CheckAlias implements [yaml.LoaderLimitsPlugin].
func (limits) CheckAlias(aliasCount, constructCount int) error { return nil }

// badText finds what the parser would refuse without saying where.
func badText(data []byte) (line, column int, message string) {
	line, column = 1, 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1:
			return line, column, "not UTF-8 text"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			return line, column, fmt.Sprintf("control character %U", r)
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		data = data[size:]
	}
	return 0, 0, ""
}

func (d *document) addSyntax(err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		d.add(1, 1, "", err.Error())
		return
	}
	message := load.Message
	if load.ContextMsg != "" {
		message += " " + load.ContextMsg
	}
	d.add(max(1, load.Mark.Line), max(1, load.Mark.Column), "", "not well-formed: "+message)
}

func (d *document) add(line, column int, path at, message string) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, Error{File: d.name, Line: line, Column: column, Path: string(path), Message: message})
	}
}

// reject reports a value that could not be read.
func (d *document) reject(n *yaml.Node, path at, format string, args ...any) {
	if len(d.errs) < maxErrors {
		d.unread[path] = true
	}
	d.add(n.Line, n.Column, path, fmt.Sprintf(format, args...))
}

// report says that the value at path breaks a rule. It stays silent when the
// value, or one around it, could not be read or has been reported already.
func (d *document) report(path at, format string, args ...any) {
	if len(d.errs) >= maxErrors || d.judged[path] || d.lost(path) {
		return
	}
	d.judged[path] = true
	var line, column int
	if n, _ := d.find(path); n != nil {
		line, column = n.Line, n.Column
	}
	d.add(line, column, path, fmt.Sprintf(format, args...))
}

// lost reports whether the value at path, or one around it, could not be read.
func (d *document) lost(path at) bool {
	for p := path; p != ""; p = p.parent() {
		if d.unread[p] {
			return true
		}
	}
	return d.unread[""]
}

// lostWithin reports whether anything at or below path could not be read, so
// that the names defined there are not all known.
func (d *document) lostWithin(path at) bool {
	for p := range d.unread {
		if rest, ok := strings.CutPrefix(string(p), string(path)); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return d.lost(path)
}

// explicit reports whether the file sets path to something other than null.
func (d *document) explicit(path at) bool {
	n, exact := d.find(path)
	return exact && !isNull(n)
}

// find returns the node at path, or else the deepest one on the way to it, and
// whether it is the exact one. It returns nil for a config built in code.
func (d *document) find(path at) (n *yaml.Node, exact bool) {
	n = resolve(d.root)
	if n == nil {
		return nil, false
	}
	for rest := string(path); rest != ""; {
		var step string
		rest = strings.TrimPrefix(rest, ".")
		if end := strings.IndexAny(rest[1:], ".["); end >= 0 {
			step, rest = rest[:end+1], rest[end+1:]
		} else {
			step, rest = rest, ""
		}
		next := resolve(child(n, step))
		if next == nil {
			return n, false
		}
		n = next
	}
	return n, true
}

// child returns the value of one step below n: a key or "[i]".
func child(n *yaml.Node, step string) *yaml.Node {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if resolve(n.Content[i]).Value == step {
				return n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(strings.Trim(step, "[]")); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}

// resolve follows aliases. An alias never leads to another alias, because an
// alias cannot carry an anchor.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// err returns the problems in file order, or nil.
func (d *document) err() error {
	if len(d.errs) == 0 {
		return nil
	}
	errs := d.errs.sorted()
	if last := errs[len(errs)-1]; len(errs) == maxErrors {
		errs = append(errs, Error{File: last.File, Line: last.Line, Column: last.Column, Message: "too many problems; more are not listed"})
	}
	return errs
}
