package configs

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// apply fills the defaults that the tags of v's fields state and checks the
// rules there, everywhere below v.
func (d *document) apply(v reflect.Value, path at) {
	for _, f := range d.fieldsOf(v.Type()) {
		fv, path := v.Field(f.index), path.key(f.key)
		d.applyField(fv, f, path)
		d.applyWithin(fv, path)
	}
}

// applyWithin applies the rules to all that v holds.
func (d *document) applyWithin(v reflect.Value, path at) {
	switch t := v.Type(); {
	case t == typeAddrPort:
		if a := v.Interface().(netip.AddrPort); a.IsValid() && a.Port() == 0 {
			d.report(path, "port 0 cannot be reached")
		}
	case t == typePrefix:
		if p := v.Interface().(netip.Prefix); p.IsValid() && p != p.Masked() {
			d.report(path, "%v has host bits set; write %v", p, p.Masked())
		}
	case isText(t):
	case t.Kind() == reflect.Struct:
		d.apply(v, path)
	case t.Kind() == reflect.Slice:
		for i := range v.Len() {
			d.applyWithin(v.Index(i), path.index(i))
		}
	case t.Kind() == reflect.Pointer && !v.IsNil():
		d.applyWithin(v.Elem(), path)
	}
}

// applyField applies the rules of one field.
func (d *document) applyField(v reflect.Value, f field, path at) {
	zero := v.IsZero()
	if zero {
		switch {
		case f.required:
			d.reportMissing(v, path)
			return
		case d.explicit(path):
			// Judged below: a written zero has to be a good value.
		case f.def != "":
			d.setDefault(v, f)
			return
		default:
			return
		}
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch {
	case !v.IsValid(): // a pointer whose value could not be read
	case f.low != "":
		low, high := reflect.New(v.Type()).Elem(), reflect.New(v.Type()).Elem()
		mustSet(low, f.low)
		mustSet(high, f.high)
		if scalarLess(v, low) || scalarLess(high, v) {
			d.report(path, "must be from %s to %s, not %s", f.low, f.high, getScalar(v))
		}
	case len(f.enum) > 0:
		d.applyEnum(v, f.enum, path)
	case zero && f.def != "":
		d.report(path, "must not be empty; leave the key out for the default, %s", f.def)
	case f.format != "":
		d.applyFormat(v.String(), f.format, path)
	}
}

func (d *document) reportMissing(v reflect.Value, path at) {
	switch {
	case v.Kind() == reflect.Slice:
		d.report(path, "required: at least one")
	case v.CanUint() && d.explicit(path):
		d.report(path, "must not be 0")
	default:
		d.report(path, "required")
	}
}

func (d *document) setDefault(v reflect.Value, f field) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	mustSet(v, f.def)
}

// mustSet stores text from a tag.
func mustSet(v reflect.Value, text string) {
	if err := setScalar(v, text); err != nil {
		panic("configs: bad tag: " + err.Error())
	}
}

func (d *document) applyEnum(v reflect.Value, words []string, path at) {
	if v.Kind() == reflect.Slice {
		d.unique(v.Len(), func(i int) (at, string) { return path.index(i), v.Index(i).String() })
		for i := range v.Len() {
			d.applyEnum(v.Index(i), words, path.index(i))
		}
		if v.Len() == 0 {
			d.report(path, "must not be empty; leave the key out for the default")
		}
		return
	}
	if !slices.Contains(words, v.String()) {
		d.report(path, "must be %s, not %s%s", either(words), quote(v.String()), suggest(v.String(), words))
	}
}

func (d *document) applyFormat(s, format string, path at) {
	switch {
	case s == "":
	case format == "name" && !isName(s):
		d.report(path, `%s is not a name: letters, digits, "-", "_" and ".", a letter or digit first, at most 63`, quote(s))
	case format == "host" && !isHost(s):
		d.report(path, "%s is not a host name or IP address", quote(s))
	case format == "domain" && !isDomain(strings.TrimSuffix(s, ".")), format == "owner" && !isOwner(strings.TrimSuffix(s, ".")):
		d.report(path, "%s is not a domain name", quote(s))
	}
}

// unique reports the elements of a list whose value was seen before. The
// values that do not count are "".
func (d *document) unique(n int, element func(i int) (path at, value string)) {
	first := map[string]at{}
	for i := range n {
		path, value := element(i)
		switch before, again := first[value]; {
		case value == "":
		case again:
			d.report(path, "repeats %s, %s", before, shorten(value))
		default:
			first[value] = path
		}
	}
}

// text returns v as a value for unique: "" when it is not valid.
func text(v interface {
	IsValid() bool
	String() string
}) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

// refer reports a name that is none of those defined in the list at root, which
// are sorted. What names a thing of that list.
func (d *document) refer(path at, name string, names []string, root at, what string) {
	if _, ok := slices.BinarySearch(names, name); ok || name == "" || d.lostWithin(root) {
		return
	}
	d.report(path, "no %s is named %s%s", what, show(name), suggest(name, names))
}

// sortedNames returns the names of the elements of a list, for refer.
func sortedNames[E any](list []E, name func(E) string) []string {
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = name(e)
	}
	slices.Sort(names)
	return names
}
