package pop

import (
	"maps"
	"net/netip"

	"anyedge/internal/fleet"
)

// exceptions are the service prefixes that are announced unlike the others. Nil
// is none.
type exceptions map[netip.Prefix]Announcement

// except returns the exceptions that orders make from an announcement. The drain
// of a prefix de-prefers it where it would be announced. It withdraws nothing:
// the guard's leases count PoPs, so nobody could say whether another PoP still
// announces a prefix that this one takes back.
func except(a Announcement, o fleet.Orders) exceptions {
	if a != Announced || len(o.Prefixes) == 0 {
		return nil
	}
	ex := make(exceptions)
	for _, d := range o.Prefixes {
		ex[d.Prefix] = Depreferred
	}
	return ex
}

// of returns how a prefix is announced when the others are announced as a.
func (ex exceptions) of(p netip.Prefix, a Announcement) Announcement {
	if own, ok := ex[p]; ok {
		return own
	}
	return a
}

func (ex exceptions) equal(other exceptions) bool { return maps.Equal(ex, other) }
