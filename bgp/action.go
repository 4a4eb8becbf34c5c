package bgp

import (
	"fmt"
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
