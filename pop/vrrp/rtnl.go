package vrrp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// link is what the kernel says about an interface. The zero value is one that
// does not exist.
type link struct {
	index     int
	mac       [macLen]byte
	ethernet  bool // it has a MAC address of an Ethernet interface
	up        bool // by the operator and by its carrier
	addresses []address
}

// address is an address of the router's family on the interface.
type address struct {
	prefix    netip.Prefix
	secondary bool // IPv4: not the first of its subnet
	usable    bool // not tentative, and not a duplicate
	valid     time.Duration
}

// forever is the lifetime of an address without a lease.
const forever = 1<<32 - 1

// errnoOf brings a netlink error to the error that it stands for.
func errnoOf(code int32) error {
	if code == 0 {
		return nil
	}
	return syscall.Errno(-code)
}

// rtnl is a connection to the kernel's network configuration (rtnetlink). It is
// not safe for concurrent use.
type rtnl struct {
	fd  int
	seq uint32
	buf []byte
}

// openRTNL opens a connection in the network namespace of the calling thread.
// With groups it is told of changes, and receiving from it does not block.
func openRTNL(groups uint32) (*rtnl, error) {
	kind := unix.SOCK_RAW | unix.SOCK_CLOEXEC
	if groups != 0 {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(unix.AF_NETLINK, kind, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("netlink bind", err)
	}
	// Older kernels know no strict requests and send more than was asked for.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &rtnl{fd: fd, buf: make([]byte, 1<<16)}, nil
}

func (c *rtnl) close() { unix.Close(c.fd) }

// do sends a request and passes every message of the answer to each, which may
// be nil.
func (c *rtnl) do(kind, flags uint16, body []byte, each func(*syscall.NetlinkMessage)) error {
	c.seq++
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(m, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(m[8:], c.seq)
	if err := unix.Sendto(c.fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink send", err)
	}
	for {
		messages, err := c.receive()
		if err != nil {
			return err
		}
		for i := range messages {
			switch m := &messages[i]; {
			case m.Header.Seq != c.seq: // the rest of an answer that was given up
			case m.Header.Type == unix.NLMSG_ERROR || m.Header.Type == unix.NLMSG_DONE:
				if len(m.Data) < 4 {
					return nil
				}
				return errnoOf(int32(binary.NativeEndian.Uint32(m.Data)))
			case each != nil:
				each(m)
			}
		}
	}
}

// receive returns the next messages.
func (c *rtnl) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("netlink receive", err)
		default:
			return syscall.ParseNetlinkMessage(c.buf[:n])
		}
	}
}

// changed reads all that the kernel has told, and reports whether it concerns
// the interface with the given index or name, or may.
func (c *rtnl) changed(index int, name string) bool {
	concerned := false
	for {
		messages, err := c.receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return concerned
		case errors.Is(err, unix.ENOBUFS): // something was lost
			concerned = true
		case err != nil:
			return true
		}
		for i := range messages {
			m := &messages[i]
			switch m.Header.Type {
			case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
				// Both bodies have the index in the second word.
				if len(m.Data) >= 8 && int(binary.NativeEndian.Uint32(m.Data[4:])) == index {
					concerned = true
				} else if m.Header.Type == unix.RTM_NEWLINK && linkName(m) == name {
					concerned = true
				}
			}
		}
	}
}

func linkName(m *syscall.NetlinkMessage) string {
	attrs, _ := syscall.ParseNetlinkRouteAttr(m)
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME && len(a.Value) > 0 {
			return string(a.Value[:len(a.Value)-1])
		}
	}
	return ""
}

// link returns the interface with a name, and its addresses of a family. An
// interface that does not exist is no error.
func (c *rtnl) link(name string, family Family) (link, error) {
	var l link
	body := appendAttr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, append([]byte(name), 0))
	err := c.do(unix.RTM_GETLINK, 0, body, func(m *syscall.NetlinkMessage) {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			return
		}
		const up = unix.IFF_UP | unix.IFF_RUNNING
		l.index = int(binary.NativeEndian.Uint32(m.Data[4:]))
		l.up = binary.NativeEndian.Uint32(m.Data[8:])&up == up
		ether := binary.NativeEndian.Uint16(m.Data[2:]) == unix.ARPHRD_ETHER
		attrs, _ := syscall.ParseNetlinkRouteAttr(m)
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_ADDRESS && len(a.Value) == macLen && ether {
				l.mac, l.ethernet = [macLen]byte(a.Value), true
			}
		}
	})
	if errors.Is(err, unix.ENODEV) {
		return link{}, nil
	} else if err != nil {
		return link{}, fmt.Errorf("interface %s: %w", name, err)
	}
	l.addresses, err = c.addresses(l.index, family)
	return l, err
}

// addresses returns the addresses of a family on an interface, in the order in
// which the kernel has them.
func (c *rtnl) addresses(index int, family Family) ([]address, error) {
	var all []address
	err := c.do(unix.RTM_GETADDR, unix.NLM_F_DUMP, addressHeader(index, family, 0), func(m *syscall.NetlinkMessage) {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg ||
			m.Data[0] != family.number() || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			return
		}
		if a, ok := parseAddress(m); ok {
			all = append(all, a)
		}
	})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	return all, nil
}

func parseAddress(m *syscall.NetlinkMessage) (address, bool) {
	var local, own netip.Addr
	flags, seconds := uint32(m.Data[2]), uint32(forever)
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return address{}, false
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			own, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_FLAGS:
			if len(a.Value) == 4 {
				flags = binary.NativeEndian.Uint32(a.Value)
			}
		case unix.IFA_CACHEINFO:
			if len(a.Value) >= 8 {
				seconds = binary.NativeEndian.Uint32(a.Value[4:])
			}
		}
	}
	if local.IsValid() { // with a peer, IFA_ADDRESS is the peer's
		own = local
	}
	p := netip.PrefixFrom(own, int(m.Data[1]))
	return address{
		prefix:    p,
		secondary: p.Addr().Is4() && flags&unix.IFA_F_SECONDARY != 0,
		usable:    flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0,
		valid:     time.Duration(seconds) * time.Second,
	}, p.IsValid()
}

// put puts an address on an interface for the given time, or renews it.
func (c *rtnl) put(index int, p netip.Prefix, lease time.Duration) error {
	family, preferred := IPv4, uint32(lease/time.Second)
	if p.Addr().Is6() {
		// Deprecated: what the node itself begins comes from another address.
		family, preferred = IPv6, 0
	}
	body := addressHeader(index, family, p.Bits())
	body = appendAttr(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = appendAttr(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	body = appendAttr(body, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_NODAD))
	times := make([]byte, 16)
	binary.NativeEndian.PutUint32(times, preferred)
	binary.NativeEndian.PutUint32(times[4:], uint32(lease/time.Second))
	body = appendAttr(body, unix.IFA_CACHEINFO, times)
	return c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body, nil)
}

// remove takes an address off an interface.
func (c *rtnl) remove(index int, p netip.Prefix) error {
	family := IPv4
	if p.Addr().Is6() {
		family = IPv6
	}
	body := addressHeader(index, family, p.Bits())
	body = appendAttr(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = appendAttr(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	return c.do(unix.RTM_DELADDR, 0, body, nil)
}

func (f Family) number() uint8 {
	if f == IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// addressHeader is struct ifaddrmsg.
func addressHeader(index int, family Family, bits int) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = family.number(), uint8(bits)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// appendAttr appends an attribute, padded to four octets.
func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}
