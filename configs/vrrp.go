package configs

import (
	"fmt"
	"net/netip"
)

// VRRP is one virtual router (RFC 9568): service addresses that one of the nodes
// on a LAN has at a time, the Active Router. IPv4 and IPv6 each need one.
type VRRP struct {
	// Interface is the Ethernet interface of the LAN.
	Interface string `yaml:"interface" required:"true"`
	// VRID is the same on all nodes, and no other virtual router's of this LAN
	// and family. 1 to 255.
	VRID uint16 `yaml:"vrid" required:"true" range:"1..255"`
	// Addresses are the virtual addresses, with the length of their network, all
	// of one family and the same on all nodes. The first IPv6 address must be
	// link-local; of the others each needs a listener.
	Addresses []InterfaceAddress `yaml:"addresses" required:"true"`
	// Priority of this node while it serves as it should, 2 to 254; the highest
	// becomes Active. Default 100.
	Priority int `yaml:"priority" default:"100" range:"2..254"`
	// DepreferredPriority is that of this node while its clients should rather go
	// elsewhere; less than priority. Default 1.
	DepreferredPriority int `yaml:"depreferred_priority" default:"1" range:"1..253"`
	// Interval between advertisements (Advertisement_Interval), in whole hundredths
	// of a second, 10ms to 40.95s, the same on all nodes. After three of them and
	// a little more the next node takes over. Default 100ms.
	Interval Duration `yaml:"interval" default:"100ms" range:"10ms..40.95s"`
	// Preempt has this node take over from one of lower priority, one that is
	// de-preferred among them (Preempt_Mode). Default true.
	Preempt *bool `yaml:"preempt" default:"true"`
	// PreemptDelay is for how long the other must have been heard before that.
	// Default 0s.
	PreemptDelay Duration `yaml:"preempt_delay" range:"0s..1h"`
}

// InterfaceAddress is an address of a host with the length of its network, such
// as "192.0.2.10/24".
type InterfaceAddress struct{ netip.Prefix }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *InterfaceAddress) UnmarshalText(text []byte) error {
	p, err := netip.ParsePrefix(string(text))
	if err != nil || p.Addr().Is4In6() {
		return fmt.Errorf("%s is not an address with the length of its network, such as 192.0.2.10/24", quote(string(text)))
	}
	a.Prefix = p
	return nil
}

// family is the name of the family that a virtual router has, or "" while
// that is not known.
func (v *VRRP) family() string {
	if len(v.Addresses) == 0 || !v.Addresses[0].IsValid() {
		return ""
	}
	return familyOf(v.Addresses[0].Addr())
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
