package bgp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Well-known communities.
const (
	GracefulShutdown  = 0xFFFF0000 // RFC 8326
	Blackhole         = 0xFFFF029A // RFC 7999
	NoExport          = 0xFFFFFF01 // RFC 1997
	NoAdvertise       = 0xFFFFFF02 // RFC 1997
	NoExportSubconfed = 0xFFFFFF03 // RFC 1997
)

var wellKnown = []struct {
	name  string
	value uint32
}{
	{"graceful-shutdown", GracefulShutdown},
	{"blackhole", Blackhole},
	{"no-export", NoExport},
	{"no-advertise", NoAdvertise},
	{"no-export-subconfed", NoExportSubconfed},
}

// ParseCommunity reads a community (RFC 1997): "asn:value" with both halves
// from 0 to 65535, or one of graceful-shutdown, blackhole, no-export,
// no-advertise and no-export-subconfed.
func ParseCommunity(s string) (uint32, error) {
	for _, c := range wellKnown {
		if s == c.name {
			return c.value, nil
		}
	}
	asn, value, ok := strings.Cut(s, ":")
	if ok {
		high, err1 := strconv.ParseUint(asn, 10, 16)
		low, err2 := strconv.ParseUint(value, 10, 16)
		if err1 == nil && err2 == nil {
			return uint32(high)<<16 | uint32(low), nil
		}
	}
	return 0, fmt.Errorf("%q is neither a community such as 64512:100 nor a well-known name", s)
}

// FormatCommunity is the inverse of ParseCommunity.
func FormatCommunity(c uint32) string {
	for _, known := range wellKnown {
		if c == known.value {
			return known.name
		}
	}
	return fmt.Sprintf("%d:%d", c>>16, c&0xffff)
}

// Communities are RFC 1997 communities. In JSON they are the texts of
// FormatCommunity.
type Communities []uint32

// String is the texts of FormatCommunity with spaces between them.
func (cs Communities) String() string { return strings.Join(cs.texts(), " ") }

func (cs Communities) texts() []string {
	texts := make([]string, len(cs))
	for i, c := range cs {
		texts[i] = FormatCommunity(c)
	}
	return texts
}

// MarshalJSON writes an array, also for nil.
func (cs Communities) MarshalJSON() ([]byte, error) {
	return json.Marshal(cs.texts())
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (cs *Communities) UnmarshalJSON(data []byte) error {
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		return err
	}
	*cs = make(Communities, len(texts))
	for i, text := range texts {
		c, err := ParseCommunity(text)
		if err != nil {
			return err
		}
		(*cs)[i] = c
	}
	return nil
}

// maxCommunities of each kind. All three kinds at the bound still leave an
// UPDATE with one prefix within the 4096 bytes of a message.
const maxCommunities = 100

// checkCommunities reports what an announcement must not carry.
func checkCommunities(cs Communities, large LargeCommunities, extended ExtendedCommunities) error {
	if slices.Contains(cs, Blackhole) {
		return fmt.Errorf("the blackhole community would have upstreams discard the traffic")
	}
	if n := max(len(cs), len(large), len(extended)); n > maxCommunities {
		return fmt.Errorf("%d communities are more than %d", n, maxCommunities)
	}
	for _, c := range extended {
		if !c.representable() {
			return fmt.Errorf("extended community %v has bits that its type reserves", c)
		}
	}
	return nil
}
