package bgp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/apiutil"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// encodePath is the announcement as a local route of GoBGP, which adds the own
// ASN once more when it sends.
func encodePath(a Announcement, asn uint32) (*api.Path, error) {
	attrs := []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP),
		bgp.NewPathAttributeMultiExitDisc(a.MED),
	}
	if a.Prepend > 0 {
		attrs = append(attrs, bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{
			bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, slices.Repeat([]uint32{asn}, a.Prepend)),
		}))
	}
	if len(a.Communities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(a.Communities))
	}
	if len(a.LargeCommunities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(encodeLarge(a.LargeCommunities)))
	}
	if len(a.ExtendedCommunities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities(encodeExtended(a.ExtendedCommunities)))
	}
	var nlri bgp.AddrPrefixInterface
	address, bits := a.Prefix.Addr().String(), uint8(a.Prefix.Bits())
	if a.Prefix.Addr().Is4() {
		nlri = bgp.NewIPAddrPrefix(bits, address)
	} else {
		nlri = bgp.NewIPv6AddrPrefix(bits, address)
	}
	if a.NextHop.Is4() {
		attrs = append(attrs, bgp.NewPathAttributeNextHop(a.NextHop.String()))
	} else { // for IPv4 as well: RFC 8950
		attrs = append(attrs, bgp.NewPathAttributeMpReachNLRI(a.NextHop.String(), []bgp.AddrPrefixInterface{nlri}))
	}
	return apiutil.NewPath(nlri, false, attrs, time.Now())
}

func encodeLarge(cs LargeCommunities) []*bgp.LargeCommunity {
	all := make([]*bgp.LargeCommunity, len(cs))
	for i, c := range cs {
		all[i] = bgp.NewLargeCommunity(c.GlobalAdmin, c.Data1, c.Data2)
	}
	return all
}

// encodeExtended keeps GoBGP from looking for a meaning.
func encodeExtended(cs ExtendedCommunities) []bgp.ExtendedCommunityInterface {
	all := make([]bgp.ExtendedCommunityInterface, len(cs))
	for i, c := range cs {
		wire := binary.BigEndian.AppendUint64(nil, uint64(c))
		all[i] = bgp.NewUnknownExtended(bgp.ExtendedCommunityAttrType(wire[0]), wire[1:])
	}
	return all
}

// decodePath is the inverse of encodePath for a route of any origin.
func decodePath(p *api.Path) (Path, error) {
	nlri, err := apiutil.GetNativeNlri(p)
	if err != nil {
		return Path{}, err
	}
	attrs, err := apiutil.GetNativePathAttributes(p)
	if err != nil {
		return Path{}, err
	}
	path := decodeAttributes(attrs)
	if path.Prefix, err = decodePrefix(nlri); err != nil {
		return Path{}, err
	}
	// GoBGP writes "<nil>" for a local route.
	path.Neighbor, _ = netip.ParseAddr(p.NeighborIp)
	return path, nil
}

func decodePrefix(nlri bgp.AddrPrefixInterface) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(nlri.String())
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("decode prefix: %w", err)
	}
	return prefix, nil
}

// decodeAttributes is what path attributes say, apart from the prefix.
func decodeAttributes(attrs []bgp.PathAttributeInterface) Path {
	var p Path
	var as4Path []uint32
	for _, attr := range attrs {
		switch a := attr.(type) {
		case *bgp.PathAttributeNextHop:
			p.NextHop = decodeAddr(a.Value)
		case *bgp.PathAttributeMpReachNLRI:
			p.NextHop = decodeAddr(a.Nexthop)
		case *bgp.PathAttributeAsPath:
			for _, segment := range a.Value {
				p.ASPath = append(p.ASPath, segment.GetAS()...)
			}
		case *bgp.PathAttributeAs4Path:
			for _, segment := range a.Value {
				as4Path = append(as4Path, segment.AS...)
			}
		case *bgp.PathAttributeMultiExitDisc:
			p.MED = a.Value
		case *bgp.PathAttributeCommunities:
			p.Communities = slices.Clone(a.Value)
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				p.LargeCommunities = append(p.LargeCommunities, LargeCommunity{c.ASN, c.LocalData1, c.LocalData2})
			}
		case *bgp.PathAttributeExtendedCommunities:
			for _, c := range a.Value {
				if wire, err := c.Serialize(); err == nil && len(wire) == 8 {
					p.ExtendedCommunities = append(p.ExtendedCommunities, ExtendedCommunity(binary.BigEndian.Uint64(wire)))
				}
			}
		}
	}
	// To a neighbor of two-octet AS numbers the true ones go in AS4_PATH; what
	// AS_PATH has more in front stays (RFC 6793 section 4.2.3).
	if more := len(p.ASPath) - len(as4Path); more >= 0 {
		p.ASPath = append(p.ASPath[:more], as4Path...)
	}
	return p
}

func decodeAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// adjRIBOut is what one session has announced and not withdrawn since.
type adjRIBOut map[netip.Prefix]sentPath

// sentPath is a path and when it was sent.
type sentPath struct {
	Path
	at time.Time
}

// update applies an UPDATE message that was sent.
func (rib adjRIBOut) update(msg []byte, now time.Time) error {
	m, err := bgp.ParseBGPMessage(msg)
	if err != nil {
		return fmt.Errorf("decode sent update: %w", err)
	}
	u, ok := m.Body.(*bgp.BGPUpdate)
	if !ok {
		return fmt.Errorf("decode sent update: message type %d", m.Header.Type)
	}
	withdrawn := prefixes(u.WithdrawnRoutes)
	announced := prefixes(u.NLRI)
	for _, attr := range u.PathAttributes {
		switch a := attr.(type) {
		case *bgp.PathAttributeMpUnreachNLRI:
			withdrawn = append(withdrawn, a.Value...)
		case *bgp.PathAttributeMpReachNLRI:
			announced = append(announced, a.Value...)
		}
	}
	path := decodeAttributes(u.PathAttributes)
	for _, nlri := range withdrawn {
		prefix, err := decodePrefix(nlri)
		if err != nil {
			return err
		}
		delete(rib, prefix)
	}
	for _, nlri := range announced {
		if path.Prefix, err = decodePrefix(nlri); err != nil {
			return err
		}
		rib[path.Prefix] = sentPath{path, now}
	}
	return nil
}

func prefixes(nlris []*bgp.IPAddrPrefix) []bgp.AddrPrefixInterface {
	all := make([]bgp.AddrPrefixInterface, 0, len(nlris))
	for _, nlri := range nlris {
		all = append(all, nlri)
	}
	return all
}

// sorted is the table as a slice, by prefix.
func (rib adjRIBOut) sorted() []Path {
	all := make([]Path, 0, len(rib))
	for _, p := range rib {
		all = append(all, p.Path)
	}
	slices.SortFunc(all, byPrefix)
	return all
}
