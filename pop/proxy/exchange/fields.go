package exchange

import (
	"iter"
	"slices"
	"strings"
)

// Field is one field line of a head or trailer section.
type Field struct {
	Name  string // as received or as it will be sent; compared without regard to case
	Value string // with no white space around it, and no control bytes
}

// Fields are field lines in order. A name may occur several times. A map would
// lose the order of lines and costs an allocation for each name.
type Fields []Field

// EqualName reports whether two field names are the same: field names are
// ASCII and case does not matter (RFC 9110, 5.1).
func EqualName(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Get returns the first value of name, or "".
func (f Fields) Get(name string) string {
	for i := range f {
		if EqualName(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// Has reports whether name occurs.
func (f Fields) Has(name string) bool {
	return slices.ContainsFunc(f, func(x Field) bool { return EqualName(x.Name, name) })
}

// Values returns the values of name in order.
func (f Fields) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if EqualName(f[i].Name, name) && !yield(f[i].Value) {
				return
			}
		}
	}
}

// List returns the elements of name read as a comma-separated list over all
// its lines (RFC 9110, 5.6.1); empty elements are left out. It does not know
// quoted strings, so it is for lists of tokens.
func (f Fields) List(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for value := range f.Values(name) {
			for element := range strings.SplitSeq(value, ",") {
				element = strings.Trim(element, " \t")
				if element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// Join returns the values of name as one comma-separated value.
func (f Fields) Join(name string) string {
	var joined string
	for value := range f.Values(name) {
		switch {
		case joined == "":
			joined = value
		case value != "":
			joined += ", " + value
		}
	}
	return joined
}

// Add appends a line.
func (f *Fields) Add(name, value string) { *f = append(*f, Field{name, value}) }

// Set makes value the only value of name.
func (f *Fields) Set(name, value string) {
	f.Del(name)
	f.Add(name, value)
}

// Del removes every line of name.
func (f *Fields) Del(name string) {
	f.DeleteFunc(func(x Field) bool { return EqualName(x.Name, name) })
}

// DeleteFunc removes every line for which del returns true, in place.
func (f *Fields) DeleteFunc(del func(Field) bool) { *f = slices.DeleteFunc(*f, del) }
