package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// SteerOverride is an operator's word on some answers of some steered names, until
// a time that is always given. It goes before health: of what it leaves, PoPs that
// are not healthy are used only if there is nothing else. One that would leave no
// answer does nothing.
type SteerOverride struct {
	// Names and Pops are patterns in the syntax of path.Match; in Names, which are
	// domain names without a final dot, "*" matches dots too.
	Names string `json:"names"`
	Pops  string `json:"pops"`
	// Only keeps the matching PoPs and drops all others; else the matching ones are
	// dropped.
	Only   bool      `json:"only,omitempty"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"` // by the clock of whoever reads it
}

// Active reports whether o holds at now.
func (o SteerOverride) Active(now time.Time) bool { return now.Before(o.Until) }

// Validate says what is wrong with o, or returns nil.
func (o SteerOverride) Validate() error {
	errs := []error{o.checkKey()}
	for _, text := range []struct{ what, text string }{{"by", o.By}, {"reason", o.Reason}} {
		if text.text == "" {
			errs = append(errs, fmt.Errorf("%s: an override says who and why", text.what))
		}
		errs = append(errs, checkText(text.what, text.text))
	}
	return errors.Join(append(errs, checkSpan(o.At, o.Until))...)
}

// checkKey checks what an override is found by.
func (o SteerOverride) checkKey() error {
	var errs []error
	for _, pattern := range []struct{ what, text string }{{"names", o.Names}, {"pops", o.Pops}} {
		if _, err := path.Match(pattern.text, ""); err != nil || pattern.text == "" || len(pattern.text) > 255 {
			errs = append(errs, fmt.Errorf("%s: %.80q is not a pattern: letters, digits, and *, ? or [a-z] for others", pattern.what, pattern.text))
		}
	}
	return errors.Join(errs...)
}

// steerOverrideKey is made from a sum, for patterns have characters that keys do
// not.
func steerOverrideKey(o SteerOverride) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s", steerName(o.Names), o.Pops))
	return prefixSteerOverrides + hex.EncodeToString(sum[:12])
}

func steerName(pattern string) string { return strings.ToLower(strings.TrimSuffix(pattern, ".")) }

// SetSteerOverride writes an override in place of the one for the same names and
// PoPs.
func (f *Fleet) SetSteerOverride(ctx context.Context, o SteerOverride) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("override: %w", err)
	}
	value, err := encode(o)
	if err != nil {
		return fmt.Errorf("override: %w", err)
	}
	return f.update(ctx, steerOverrideKey(o), func([]byte) ([]byte, error) { return value, nil })
}

// ClearSteerOverride takes the override with the names and PoPs of o away. To
// clear one that is not there succeeds.
func (f *Fleet) ClearSteerOverride(ctx context.Context, o SteerOverride) error {
	if err := o.checkKey(); err != nil {
		return fmt.Errorf("override: %w", err)
	}
	return f.update(ctx, steerOverrideKey(o), func([]byte) ([]byte, error) { return nil, nil })
}

func decodeSteerOverride(key string, value []byte) (SteerOverride, error) {
	var o SteerOverride
	if err := json.Unmarshal(value, &o); err != nil {
		return SteerOverride{}, err
	}
	if err := o.Validate(); err != nil {
		return SteerOverride{}, err
	}
	if steerOverrideKey(o) != key {
		return SteerOverride{}, fmt.Errorf("%.80q of %.80q under the key %q", o.Pops, o.Names, key)
	}
	return o, nil
}

func compareSteerOverrides(a, b SteerOverride) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Names, b.Names), cmp.Compare(a.Pops, b.Pops))
}
