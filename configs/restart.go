package configs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// FixedKeys returns the keys whose change a running process cannot take, each
// with a sum of its value: those with the tag "restart". A key at zero is left
// out. Paths count as they are written, so to compare configs of two origins take
// both from Parse functions, or both from Load functions. A process of another
// version may have another sum for the same text, where a key with a default is
// new.
func FixedKeys[T Pop | GSLB](config *T) map[string]string {
	sums := make(map[string]string)
	d := newDocument("")
	d.addFixed(reflect.ValueOf(config).Elem(), "", sums)
	return sums
}

func (d *document) addFixed(v reflect.Value, path at, sums map[string]string) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || isText(v.Type()) {
		return
	}
	for _, f := range d.fieldsOf(v.Type()) {
		fv, path := v.Field(f.index), path.key(f.key)
		switch {
		case fv.IsZero() || fv.Kind() == reflect.Slice && fv.Len() == 0:
		case f.restart == restartOnChange:
			sums[string(path)] = d.sum(fv)
		case f.restart == restartOnPresence:
			sums[string(path)] = "present"
			fallthrough
		default:
			d.addFixed(fv, path, sums)
		}
	}
}

// sum is 64 bits of a digest of a value's text.
func (d *document) sum(v reflect.Value) string {
	text, err := yaml.Dump(d.encode(v))
	if err != nil { // what was decoded can be encoded
		panic(fmt.Sprintf("configs: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// ChangedKeys names the keys whose values differ by what FixedKeys returned for
// two configs, in order. A key inside another that came or went is left out.
func ChangedKeys(old, next map[string]string) []string {
	all := maps.Clone(old)
	maps.Copy(all, next)
	var changed []string
	for _, key := range slices.Sorted(maps.Keys(all)) { // the outer before the inner
		inner := slices.ContainsFunc(changed, func(outer string) bool { return strings.HasPrefix(key, outer+".") })
		if old[key] != next[key] && !inner {
			changed = append(changed, key)
		}
	}
	return changed
}

// RestartNeeded names the keys in which next differs from the config of a running
// process so that only a restart helps; nil if there are none.
func RestartNeeded[T Pop | GSLB](running, next *T) error {
	var errs []error
	for _, key := range ChangedKeys(FixedKeys(running), FixedKeys(next)) {
		errs = append(errs, fmt.Errorf("%s changed: that needs a restart", key))
	}
	return errors.Join(errs...)
}
