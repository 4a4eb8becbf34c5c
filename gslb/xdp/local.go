package xdp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// localAddresses returns the host's addresses that queries from elsewhere can come
// to.
func localAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	var local []netip.Addr
	for _, each := range all {
		if n, ok := each.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap().IsGlobalUnicast() {
				local = append(local, a.Unmap())
			}
		}
	}
	return local, nil
}

// endpointsOf returns where a server that listens at the first answers, on a host
// that has the others. An address that has moved away is not the server's, even
// though its socket is open.
func endpointsOf(listen []netip.AddrPort, local []netip.Addr) map[endpoint]bool {
	endpoints := make(map[endpoint]bool)
	for _, l := range listen {
		for _, a := range local {
			if l.Addr() != a && (!l.Addr().IsUnspecified() || l.Addr().Is4() != a.Is4()) {
				continue
			}
			e := endpoint{Address: a.As16()}
			binary.BigEndian.PutUint16(e.Port[:], l.Port())
			endpoints[e] = true
		}
	}
	return endpoints
}
