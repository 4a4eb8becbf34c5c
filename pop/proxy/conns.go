package proxy

import (
	"io"
	"net"
	"net/netip"
	"sync"

	"anyedge/configs"
)

// reserve is how many connections from this machine itself are admitted beyond
// the ceiling. The agent's probes are among them: a node that is full must not
// look as if it were dead, or its load would fall upon the others.
const reserve = 16

// admit registers a connection, or closes it if a ceiling is reached: a client
// that is told at once can try elsewhere, one left in the queue cannot. It
// returns the result as a metric's label.
func (w *Worker) admit(conn net.Conn, l configs.Listener) (result string) {
	limits := limits{all: w.state.Load().maxConnections, client: l.Limits.ClientConnections}
	client := unmap(conn.RemoteAddr()).Addr()
	here, hop := local(conn), trusted(client, l.TrustedHops)
	if here {
		limits.all += reserve
	}
	if hop {
		limits.client = 0
	}
	if result = w.conns.add(conn, visitor{client, !here && !hop}, limits); result == admitted {
		return admitted
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // leave nothing behind in the kernel
	}
	conn.Close()
	return result
}

// guest is a connection of HTTP/3. It ends with its listener's front.
type guest struct{ _ byte }

func (*guest) Close() error { return nil }

// admitGuest is admit for a connection that is no [net.Conn].
func (w *Worker) admitGuest(client netip.Addr, l configs.Listener) (g *guest, result string) {
	limits := limits{all: w.state.Load().maxConnections, client: l.Limits.ClientConnections}
	if trusted(client, l.TrustedHops) {
		limits.client = 0
	}
	g = new(guest)
	return g, w.conns.add(g, visitor{client: client}, limits)
}

// local reports whether a connection comes from this machine.
func local(conn net.Conn) bool {
	remote := unmap(conn.RemoteAddr()).Addr()
	return remote.IsLoopback() || remote == unmap(conn.LocalAddr()).Addr()
}

// trusted reports whether a peer is a hop of ours.
func trusted(peer netip.Addr, hops []netip.Prefix) bool {
	for _, prefix := range hops {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// limits bound the connections that are open.
type limits struct {
	all    int64
	client int // of one client's network; 0 is no bound
}

// conns are the client connections that are open.
type conns struct {
	mu      sync.Mutex
	open    map[io.Closer]visitor // each one's client is its network
	clients map[netip.Addr]int    // how many each has
	distant int                   // how many are
	quiet   chan struct{}         // has a value after the last one has ended
}

// visitor is who has a connection.
type visitor struct {
	client  netip.Addr
	distant bool // its round-trip time is a client's; see rttSampler
}

func newConns() conns {
	return conns{open: make(map[io.Closer]visitor), clients: make(map[netip.Addr]int), quiet: make(chan struct{}, 1)}
}

// add registers a connection if the limits allow, and returns the result as a
// metric's label.
func (c *conns) add(conn io.Closer, who visitor, limits limits) (result string) {
	who.client = network(who.client)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case int64(len(c.open)) >= limits.all:
		return refused
	case limits.client > 0 && c.clients[who.client] >= limits.client:
		return crowded
	}
	c.open[conn] = who
	c.clients[who.client]++
	if who.distant {
		c.distant++
	}
	return admitted
}

func (c *conns) remove(conn io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := c.open[conn]
	delete(c.open, conn)
	if c.clients[who.client]--; c.clients[who.client] == 0 {
		delete(c.clients, who.client)
	}
	if who.distant {
		c.distant--
	}
	if len(c.open) == 0 {
		select {
		case c.quiet <- struct{}{}:
		default:
		}
	}
}

// network returns what stands for one client: its address, or with IPv6 its
// /64, of which it can use any address.
func network(client netip.Addr) netip.Addr {
	if client.Is4() {
		return client
	}
	prefix, _ := client.WithZone("").Prefix(64) // of an IPv6 address there is one
	return prefix.Addr()
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// sample returns at most so many distant connections, at random, and how many
// there are in all.
func (c *conns) sample(most int) (some []net.Conn, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	visits := 0
	for conn, who := range c.open { // begins anywhere
		// Nobody waits long for this, however few are distant.
		if visits++; len(some) >= min(most, c.distant) || visits > 16*most {
			break
		}
		if tcp, ok := conn.(net.Conn); ok && who.distant {
			some = append(some, tcp)
		}
	}
	return some, c.distant
}

// closeAll closes them; each is removed by the task that serves it.
func (c *conns) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}
