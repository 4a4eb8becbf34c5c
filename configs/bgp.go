package configs

// Action is a named change of a route, such as "prepend-2" or
// "no-export-to-AS64501". What communities mean is up to the neighbor that reads
// them. An action changes something, or withholds the route.
type Action struct {
	// Name is unique in the table: a name like the node's.
	Name string `yaml:"name" required:"true" format:"name"`
	// Prepend repeats the own ASN this many more times, 0 to 16; a route has 16
	// of them at most. Default 0.
	Prepend int `yaml:"prepend" range:"0..16"`
	// MED replaces the multi-exit discriminator. Default: no change.
	MED *uint32 `yaml:"med"`
	// Communities are added. Default none.
	Communities []string `yaml:"communities"`
	// LargeCommunities are added. Default none.
	LargeCommunities []string `yaml:"large_communities"`
	// ExtendedCommunities are added. Default none.
	ExtendedCommunities []string `yaml:"extended_communities"`
	// Withhold keeps the route from the neighbor. It may not keep it from all of
	// them: that would be a withdrawal without the guard. Default false.
	Withhold bool `yaml:"withhold"`
}

// NeighborActions names what is done to the routes of one neighbor.
type NeighborActions struct {
	// Announce is for normal service. Default none.
	Announce []string `yaml:"announce"`
	// Deprefer is for while traffic should go elsewhere. Default none.
	Deprefer []string `yaml:"deprefer"`
	// Drain is for while an operator takes the node, or a prefix, out of service.
	// Default: as deprefer.
	Drain []string `yaml:"drain"`
}

// BFD is a session of Bidirectional Forwarding Detection over one hop (RFC
// 5880, RFC 5881). The agent runs it in a process of its own, which wants
// real-time priority: the capability SYS_NICE, or LimitRTPRIO=10 under systemd.
type BFD struct {
	// Interval is the shortest between two packets, in both directions. Default
	// 50ms, 10ms to 1m.
	Interval Duration `yaml:"interval" default:"50ms" range:"10ms..1m"`
	// Multiplier is how many intervals of silence the neighbor takes for a failure
	// of this node. Default 3, 1 to 255.
	Multiplier int `yaml:"multiplier" default:"3" range:"1..255"`
	// Auth authenticates both directions with keyed SHA1. Absent: none.
	Auth *BFDAuth `yaml:"auth"`
}

// BFDAuth is keyed SHA1 authentication of BFD (RFC 5880 section 6.7.4). After a
// restart of either side the other takes no packets for twice the detection time.
type BFDAuth struct {
	// KeyFile holds the key, 1 to 20 bytes.
	KeyFile string `yaml:"key_file" required:"true" file:"secret"`
	// KeyID names the key to the neighbor. Default 1, 1 to 255.
	KeyID int `yaml:"key_id" default:"1" range:"1..255"`
	// Meticulous refuses a sequence number that came before; the neighbor must be
	// set alike. Default false.
	Meticulous bool `yaml:"meticulous"`
}

// The states in which a route goes out, with the shape and the actions of each.
// The names are those of the keys.
const (
	StateAnnounce = "announce"
	StateDeprefer = "deprefer"
	StateDrain    = "drain"
)

// RouteStates lists the states.
func RouteStates() []string { return []string{StateAnnounce, StateDeprefer, StateDrain} }

// Shape returns the shape of a route in a state.
func (b *BGP) Shape(state string) RouteShape {
	switch {
	case state == StateAnnounce:
		return b.Announce
	case state == StateDrain && b.Drain != nil:
		return *b.Drain
	}
	return *b.Deprefer
}

// In returns the actions of a state.
func (a *NeighborActions) In(state string) []string {
	switch {
	case state == StateAnnounce:
		return a.Announce
	case state == StateDrain && a.Drain != nil:
		return a.Drain
	}
	return a.Deprefer
}
