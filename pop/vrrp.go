package pop

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/internal/daemon"
	"anyedge/pop/vrrp"
)

// virtualRouters are the virtual routers of a node in a PoP without a router
// that speaks BGP. They follow the same announcement as a route does:
//
//   - announced, the node is in the election with its priority;
//   - de-preferred, it is in with a lower one, and serves while nobody better does;
//   - withdrawn, it is out, and an Active Router first hands over.
//
// So to be announced is to be ready to serve, whether or not the node has the
// addresses now. That is also what the guard counts: a PoP is out when none of its
// nodes is announced, and while a Backup is, its sibling may go without asking more
// than whether the load fits. A Backup says in its report that it stands by: its
// room is of use to its PoP only, see [guard.Node].
type virtualRouters struct {
	routers     []*vrrp.Router
	depreferred []uint8 // priorities, in the order of routers
}

// newVirtualRouters makes the virtual routers of a config, or returns nil if it
// has none.
func newVirtualRouters(cfg []configs.VRRP, log *slog.Logger, reg prometheus.Registerer) (*virtualRouters, error) {
	if len(cfg) == 0 {
		return nil, nil
	}
	v := new(virtualRouters)
	for i, c := range cfg {
		addresses := make([]netip.Prefix, len(c.Addresses))
		for j, a := range c.Addresses {
			addresses[j] = a.Prefix
		}
		r, err := vrrp.New(vrrp.Config{
			Interface: c.Interface, VRID: uint8(c.VRID), Addresses: addresses,
			Priority: uint8(c.Priority), Interval: c.Interval.Std(),
			Preempt: *c.Preempt, PreemptDelay: c.PreemptDelay.Std(),
		}, log, reg)
		if err != nil {
			return nil, fmt.Errorf("vrrp[%d]: %w", i, err)
		}
		v.routers = append(v.routers, r)
		v.depreferred = append(v.depreferred, uint8(c.DepreferredPriority))
	}
	return v, nil
}

// tasks run the routers.
func (v *virtualRouters) tasks() []daemon.Task {
	tasks := make([]daemon.Task, len(v.routers))
	for i, r := range v.routers {
		tasks[i] = r
	}
	return tasks
}

// set implements [elector].
func (v *virtualRouters) set(a Announcement, reason string) {
	for i, r := range v.routers {
		r.Set(electionHealth(a, v.depreferred[i], reason))
	}
}

// electionHealth is what an announcement means to a router.
func electionHealth(a Announcement, depreferred uint8, reason string) vrrp.Health {
	h := vrrp.Health{Serving: a != Withdrawn, Reason: reason}
	if a == Depreferred {
		h.Priority = depreferred
	}
	return h
}

// status implements [elector].
func (v *virtualRouters) status() []vrrp.Status {
	all := make([]vrrp.Status, len(v.routers))
	for i, r := range v.routers {
		all[i] = r.Status()
	}
	return all
}

// elector is the controller's view of [virtualRouters].
type elector interface {
	set(Announcement, string)
	status() []vrrp.Status
}

// vrrpChecks names the checks of the virtual routers, one for each.
func vrrpChecks(cfg *configs.Pop) []string {
	var names []string
	for _, v := range cfg.VRRP {
		family := vrrp.IPv4
		if v.Addresses[0].Addr().Is6() {
			family = vrrp.IPv6
		}
		names = append(names, vrrpCheck(v.Interface, uint8(v.VRID), family))
	}
	return names
}

func vrrpCheck(iface string, vrid uint8, family vrrp.Family) string {
	return fmt.Sprintf("vrrp:%s/%d/%s", iface, vrid, family)
}

// observeElection judges whether the node could take the addresses: one whose
// interface is down, or where somebody else has put an address, cannot serve,
// and must not count as one that can. Who is Active does not matter. Until a
// router has looked at its interface it says nothing.
func (c *controller) observeElection(now time.Time) {
	if c.elector == nil {
		return
	}
	c.standby = true
	for _, s := range c.elector.status() {
		if !s.Since.IsZero() {
			c.judge.Observe(now, vrrpCheck(s.Interface, s.VRID, s.Family), s.Obstacle == "", s.Obstacle)
		}
		c.standby = c.standby && s.State != vrrp.Active
	}
}
