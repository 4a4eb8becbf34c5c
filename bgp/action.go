package bgp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Action is a change that an operator asks for by name, such as "prepend-2" or
// "no-export-to-AS64501".
type Action struct {
	// Prepend is added to the announcement's, 0 to 16.
	Prepend int
	// MED replaces the announcement's. Nil: no change.
	MED *uint32
	// Communities of the three kinds are added.
	Communities         Communities
	LargeCommunities    LargeCommunities
	ExtendedCommunities ExtendedCommunities
	// Withhold means not to announce at all.
	Withhold bool
}

// Actions is a table of actions by name. What a name means is up to the
// operator, and to the communities that the upstream publishes. It is resolved
// into announcements before they are Set, for one neighbor or for all.
type Actions map[string]Action

// Check reports everything that is wrong with the table.
func (t Actions) Check() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t)) {
		a := t[name]
		if name == "" {
			errs = append(errs, errors.New("actions: a name is empty"))
		}
		if a.Prepend < 0 || a.Prepend > maxPrepend {
			errs = append(errs, fmt.Errorf("actions[%s].prepend: %d is not within 0 to %d", name, a.Prepend, maxPrepend))
		}
		if err := checkCommunities(a.Communities, a.LargeCommunities, a.ExtendedCommunities); err != nil {
			errs = append(errs, fmt.Errorf("actions[%s]: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Apply returns a with the named actions, one after the other. More prepending
// than a route may have is cut off at 16. a itself is not changed.
func (t Actions) Apply(a Announcement, names ...string) (Announcement, error) {
	a.Communities = slices.Clone(a.Communities)
	a.LargeCommunities = slices.Clone(a.LargeCommunities)
	a.ExtendedCommunities = slices.Clone(a.ExtendedCommunities)
	for _, name := range names {
		action, ok := t[name]
		if !ok {
			return Announcement{}, fmt.Errorf("%q is not an action of the table", name)
		}
		a.Prepend = min(a.Prepend+action.Prepend, maxPrepend)
		if action.MED != nil {
			a.MED = *action.MED
		}
		a.Communities = append(a.Communities, action.Communities...)
		a.LargeCommunities = append(a.LargeCommunities, action.LargeCommunities...)
		a.ExtendedCommunities = append(a.ExtendedCommunities, action.ExtendedCommunities...)
		if action.Withhold && a.Withheld == "" {
			a.Withheld = "action " + name
		}
	}
	return a, nil
}
