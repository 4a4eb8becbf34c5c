package steer

import (
	"fmt"
	"path"
	"time"
)

// Active reports whether an override counts at a time.
func (o Override) Active(now time.Time) bool { return o.Until.IsZero() || now.Before(o.Until) }

// String describes an override for humans.
func (o Override) String() string {
	verb := "without"
	if o.Only {
		verb = "only"
	}
	text := fmt.Sprintf("%s: %s %s", o.Names, verb, o.Pops)
	if !o.Until.IsZero() {
		text += " until " + o.Until.UTC().Format(time.RFC3339)
	}
	if o.Why != "" {
		text += " (" + o.Why + ")"
	}
	return text
}

func (o Override) check() error {
	for _, pattern := range []string{o.Names, o.Pops} {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("%q is not a pattern", pattern)
		}
	}
	return nil
}

// NextExpiry returns when the first of the overrides in force expires, which is
// when a table has to be built anew; zero if none does.
func (t *Table) NextExpiry() time.Time {
	var next time.Time
	if t == nil {
		return next
	}
	for _, o := range t.input.Overrides {
		if o.Active(t.input.Now) && !o.Until.IsZero() && (next.IsZero() || o.Until.Before(next)) {
			next = o.Until
		}
	}
	return next
}

// override applies the operator's word to the candidates of a name.
func (b *builder) override(name string, candidates []candidate) []candidate {
	for _, o := range b.input.Overrides {
		if matched, _ := path.Match(Canonical(o.Names), name); !matched || !o.Active(b.input.Now) {
			continue
		}
		var left []candidate
		for _, c := range candidates {
			if matched, _ := path.Match(o.Pops, c.pop.Name); matched == o.Only {
				left = append(left, c)
			}
		}
		if len(left) == 0 {
			b.record(families, "override", candidates, candidates, nil, o.String()+", ignored: it would leave none")
			continue
		}
		b.record(families, "override", candidates, left, func(candidate) string { return o.String() })
		candidates = left
	}
	return candidates
}
