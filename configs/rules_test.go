package configs

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// TestTags reads every tag of every config struct: the words must be known and
// the defaults must obey the other rules of their field.
func TestTags(t *testing.T) {
	d, seen := newDocument(""), map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch {
		case isText(typ) || seen[typ]:
		case typ.Kind() == reflect.Pointer, typ.Kind() == reflect.Slice:
			walk(typ.Elem())
		case typ.Kind() == reflect.Struct:
			seen[typ] = true
			for _, f := range d.fieldsOf(typ) {
				checkTags(t, typ, f)
				walk(typ.Field(f.index).Type)
			}
		}
	}
	for _, k := range kinds {
		walk(k.config)
	}
	if len(seen) < 25 {
		t.Errorf("only %d structs seen", len(seen))
	}
}

func checkTags(t *testing.T, typ reflect.Type, f field) {
	t.Helper()
	where := typ.Name() + "." + typ.Field(f.index).Name
	if !slices.Contains([]string{"", "name", "host", "domain", "owner"}, f.format) {
		t.Errorf("%s: unknown format %q", where, f.format)
	}
	if !slices.Contains([]string{"", "secret", "state", "public"}, f.file) {
		t.Errorf("%s: unknown kind of file %q", where, f.file)
	}
	value := typ.Field(f.index).Type
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	scalar := func(text string) reflect.Value {
		v := reflect.New(value).Elem()
		if err := setScalar(v, text); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		return v
	}
	if f.low != "" {
		low, high := scalar(f.low), scalar(f.high)
		if !scalarLess(low, high) {
			t.Errorf("%s: empty range", where)
		}
		if f.def != "" && (scalarLess(scalar(f.def), low) || scalarLess(high, scalar(f.def))) {
			t.Errorf("%s: the default is out of range", where)
		}
	}
	if f.def == "" {
		return
	}
	if f.required {
		t.Errorf("%s: required, so its default is never used", where)
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, f.def) {
		t.Errorf("%s: the default is none of the words", where)
	}
	if scalar(f.def); typ.Field(f.index).Type.Kind() != reflect.Pointer && scalar(f.def).IsZero() {
		t.Errorf("%s: a default of zero needs no tag", where)
	}
}

// TestDefaultNetworksAreForDocumentation keeps the lab off real addresses.
func TestDefaultNetworksAreForDocumentation(t *testing.T) {
	var reserved []netip.Prefix
	for _, s := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "127.0.0.0/8"} {
		reserved = append(reserved, netip.MustParsePrefix(s))
	}
	l := DefaultLab()
	networks := append([]netip.Prefix{l.Network}, l.Prefixes...)
	for _, c := range l.Clients {
		networks = append(networks, c.Prefix)
	}
	for i, n := range networks {
		if !slices.ContainsFunc(reserved, func(r netip.Prefix) bool { return r.Contains(n.Addr()) && r.Bits() <= n.Bits() }) {
			t.Errorf("%v belongs to somebody", n)
		}
		for _, other := range networks[:i] {
			if n.Overlaps(other) {
				t.Errorf("%v overlaps %v", n, other)
			}
		}
	}
}
