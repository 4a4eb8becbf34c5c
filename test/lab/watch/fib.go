package watch

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/test/lab/netns"
)

var native = binary.NativeEndian

// FIB watches the routes in the main table of a machine's kernel.
type FIB struct {
	Changes Record[Change]

	socket *os.File
}

// Change is a change of one route. In the kernel's words IPv4 routes are
// replaced at once, and those of IPv6 may go hop by hop.
type Change struct {
	At     time.Time
	Prefix netip.Prefix
	// NextHops of the route after the change, sorted; none when it is gone.
	NextHops []netip.Addr
}

// Gone reports whether the route is no longer there.
func (c Change) Gone() bool { return len(c.NextHops) == 0 }

// OpenFIB begins to listen.
func OpenFIB(s netns.Space) (*FIB, error) {
	const groups = 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)
	f, err := open(s, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, "routes of "+string(s), func(fd int) error {
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}))
	})
	if err != nil {
		return nil, fmt.Errorf("watch the routes of %s: %w", s, err)
	}
	return &FIB{socket: f}, nil
}

// Run notes until ctx ends. An error means that changes may have been missed.
func (f *FIB) Run(ctx context.Context) error {
	return receive(ctx, f.socket, func(at time.Time, _ unix.Sockaddr, data []byte) error {
		messages, err := syscall.ParseNetlinkMessage(data)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		for _, m := range messages {
			if c, ok := parseRoute(m); ok {
				c.At = at
				f.Changes.add(c)
			}
		}
		return nil
	})
}

// parseRoute reads an rtmsg and its attributes.
func parseRoute(m syscall.NetlinkMessage) (c Change, ok bool) {
	gone := m.Header.Type == unix.RTM_DELROUTE
	if !gone && m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return c, false
	}
	family, bits, table, kind := m.Data[0], int(m.Data[1]), m.Data[4], m.Data[7]
	if table != unix.RT_TABLE_MAIN || kind != unix.RTN_UNICAST || family != unix.AF_INET && family != unix.AF_INET6 {
		return c, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return c, false
	}
	destination := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		destination = netip.IPv6Unspecified()
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			destination, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_GATEWAY:
			c.addHop(a.Value)
		case unix.RTA_MULTIPATH:
			c.addHops(a.Value)
		}
	}
	c.Prefix = netip.PrefixFrom(destination, bits)
	if gone {
		c.NextHops = nil
	}
	slices.SortFunc(c.NextHops, netip.Addr.Compare)
	return c, c.Prefix.IsValid()
}

func (c *Change) addHop(address []byte) {
	if a, ok := netip.AddrFromSlice(address); ok {
		c.NextHops = append(c.NextHops, a)
	}
}

// addHops reads the rtnexthop structures of a multipath route, each with its own
// attributes.
func (c *Change) addHops(data []byte) {
	for len(data) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(data))
		if n < unix.SizeofRtNexthop || n > len(data) {
			return
		}
		for attrs := data[unix.SizeofRtNexthop:n]; len(attrs) >= unix.SizeofRtAttr; {
			length, kind := int(native.Uint16(attrs)), native.Uint16(attrs[2:])
			if length < unix.SizeofRtAttr || length > len(attrs) {
				break
			}
			if kind == unix.RTA_GATEWAY {
				c.addHop(attrs[unix.SizeofRtAttr:length])
			}
			attrs = attrs[min(align(length), len(attrs)):]
		}
		data = data[min(align(n), len(data)):]
	}
}

// align rounds up to what netlink aligns to.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
