package configs

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// field is one struct field and the rules in its tags.
type field struct {
	index    int
	key      string // in the file
	def      string // default value, as text
	low      string // range, both ends included; empty without one
	high     string
	enum     []string
	required bool
	format   string // name, host, domain or owner
	file     string // secret or public; empty for what is no path
	restart  string // restartOnChange or restartOnPresence; empty if a reload takes every change
}

// What a restart tag can say.
const (
	restartOnChange   = "change"
	restartOnPresence = "presence"
)

// fieldsOf returns the fields of a config struct. It panics on a struct that
// this package did not write with care: a missing yaml tag or a bad range.
func (d *document) fieldsOf(t reflect.Type) []field {
	if fields, ok := d.fields[t]; ok {
		return fields
	}
	fields := make([]field, t.NumField())
	for i := range fields {
		sf := t.Field(i)
		f := field{
			index:    i,
			key:      sf.Tag.Get("yaml"),
			def:      sf.Tag.Get("default"),
			enum:     strings.Fields(sf.Tag.Get("enum")),
			required: sf.Tag.Get("required") == "true",
			format:   sf.Tag.Get("format"),
			file:     sf.Tag.Get("file"),
			restart:  sf.Tag.Get("restart"),
		}
		if f.key == "" {
			panic(fmt.Sprintf("configs: %v.%s has no yaml tag", t, sf.Name))
		}
		if limits, ok := sf.Tag.Lookup("range"); ok {
			if f.low, f.high, ok = strings.Cut(limits, ".."); !ok {
				panic(fmt.Sprintf("configs: %v.%s has a bad range", t, sf.Name))
			}
		}
		fields[i] = f
	}
	d.fields[t] = fields
	return fields
}

var (
	typeAddr     = reflect.TypeFor[netip.Addr]()
	typeAddrPort = reflect.TypeFor[netip.AddrPort]()
	typePrefix   = reflect.TypeFor[netip.Prefix]()
	typeText     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isText reports whether values of type t are written as one word that t
// itself understands.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(typeText) }

// wanted describes the values of type t, for "want …".
func wanted(t reflect.Type) string {
	switch t {
	case typeAddr:
		return "an IP address"
	case typeAddrPort:
		return "an address and port such as 192.0.2.1:443"
	case typePrefix:
		return "a network such as 192.0.2.0/24"
	case reflect.TypeFor[InterfaceAddress]():
		return "an address with the length of its network such as 192.0.2.10/24"
	case reflect.TypeFor[Duration]():
		return "a duration such as 250ms or 1h"
	case reflect.TypeFor[Size]():
		return "a size such as 32KiB"
	case reflect.TypeFor[Percent]():
		return "a percentage such as 34%"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Struct:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	}
	return "a whole number"
}

var (
	decimalInt   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	decimalFloat = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// setScalar stores text in v, whose type is no struct, slice or pointer unless
// it is a text type. The error is one for the reader of the config.
func setScalar(v reflect.Value, text string) error {
	switch v.Type() {
	case typeAddr:
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%s is not %s", quote(text), wanted(v.Type()))
		}
		v.Set(reflect.ValueOf(a.Unmap()))
		return nil
	case typeAddrPort:
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("%s is not %s", quote(text), wanted(v.Type()))
		}
		v.Set(reflect.ValueOf(netip.AddrPortFrom(a.Addr().Unmap(), a.Port())))
		return nil
	case typePrefix:
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return fmt.Errorf("%s is not %s", quote(text), wanted(v.Type()))
		}
		v.Set(reflect.ValueOf(p))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s is not %s", quote(text), wanted(v.Type()))
		}
		v.SetBool(b)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !decimalFloat.MatchString(text) || math.IsInf(n, 0) {
			return fmt.Errorf("%s is not a number in plain decimal digits", show(text))
		}
		v.SetFloat(n)
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if !decimalInt.MatchString(text) {
			return fmt.Errorf("%s is not a whole number in plain decimal digits", show(text))
		}
		if err != nil || v.OverflowInt(n) {
			return fmt.Errorf("%s is out of range", show(text))
		}
		v.SetInt(n)
	case reflect.Uint16, reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, 64)
		if !decimalInt.MatchString(text) {
			return fmt.Errorf("%s is not a whole number in plain decimal digits", show(text))
		}
		if err != nil || v.OverflowUint(n) {
			return fmt.Errorf("must be from 0 to %d, not %s", uint64(1)<<v.Type().Bits()-1, show(text))
		}
		v.SetUint(n)
	default:
		panic(fmt.Sprintf("configs: no way to read a %v", v.Type()))
	}
	return nil
}

// getScalar is the inverse of setScalar.
func getScalar(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil { // no type of this package, nor of netip, does that
			panic(fmt.Sprintf("configs: %v: %v", v.Type(), err))
		}
		return string(text)
	}
	if v.Kind() == reflect.Float64 {
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	}
	return fmt.Sprint(v.Interface())
}

// scalarLess orders two values of one type that has a range.
func scalarLess(a, b reflect.Value) bool {
	switch {
	case a.CanInt():
		return a.Int() < b.Int()
	case a.CanUint():
		return a.Uint() < b.Uint()
	}
	return a.Float() < b.Float()
}
