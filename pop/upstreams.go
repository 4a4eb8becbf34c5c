package pop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/bgp"
	"anyedge/bgp/bfd"
	"anyedge/configs"
	"anyedge/internal/daemon"
)

// upstreams are the sessions with the upstream routers: BGP, and BFD where a
// neighbor has it. Their set follows the config while they run.
type upstreams struct {
	speaker *bgp.Speaker
	paths   *bfd.Manager
	// blackholes are what operators have upstreams discard.
	blackholes *blackholes

	log     *slog.Logger
	watched chan struct{} // capacity 1: there is a neighbor with BFD
}

// neighbors is what a config, and the files that it names, say about the
// upstream routers.
type neighbors struct {
	sessions []bgp.Neighbor
	paths    []bfd.Peer
	farewell string
}

// newUpstreams reads the neighbors' secrets and makes their sessions. Engine is
// the command line of the process that BFD runs in.
func newUpstreams(cfg *configs.BGP, engine []string, log *slog.Logger, reg prometheus.Registerer) (*upstreams, error) {
	n, err := readNeighbors(cfg)
	if err != nil {
		return nil, err
	}
	u := &upstreams{
		paths:   bfd.NewManager(bfd.Config{Engine: engine}, log.With("part", "bfd"), reg),
		log:     log.With("part", "bgp"),
		watched: make(chan struct{}, 1),
	}
	c := speakerConfig(cfg, n)
	c.Paths = u.paths
	if u.speaker, err = bgp.NewSpeaker(c, u.log, reg); err != nil {
		return nil, fmt.Errorf("bgp: %w", err)
	}
	u.blackholes = newBlackholes(u.speaker, u.log)
	u.watch(context.Background(), n.paths)
	return u, nil
}

// tasks run the sessions.
func (u *upstreams) tasks() []daemon.Task {
	return []daemon.Task{
		daemon.NewTask("bgp and bfd", u.run),
		daemon.NewTask("blackholes", u.blackholes.run),
	}
}

// set makes n the neighbors. Sessions whose neighbor is as before are not
// touched. What does not happen in time happens later.
func (u *upstreams) set(ctx context.Context, n neighbors) {
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	u.watch(ctx, n.paths)
	if err := errors.Join(u.speaker.SetNeighbors(ctx, n.sessions), u.speaker.SetFarewell(n.farewell)); err != nil {
		u.log.Error("speaker did not take the neighbors yet", "error", err)
	}
}

// watch makes peers those whose paths are watched.
func (u *upstreams) watch(ctx context.Context, peers []bfd.Peer) {
	if err := u.paths.Set(ctx, peers); err != nil {
		u.log.Error("bfd did not take the neighbors yet", "error", err)
	}
	if len(peers) > 0 {
		select {
		case u.watched <- struct{}{}:
		default:
		}
	}
}

// run runs the sessions until ctx ends. BFD outlives BGP: some routers take the
// farewell of BFD for a failure, and would never read that of BGP.
func (u *upstreams) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() {
		err := u.runBFD(watching)
		if err != nil {
			cancel()
		}
		ended <- err
	}()
	err := u.speaker.Run(ctx)
	stop()
	return errors.Join(err, <-ended)
}

// runBFD runs BFD from when there is a neighbor that has it: a node without one
// needs no engine, nor the privileges that it asks for.
func (u *upstreams) runBFD(ctx context.Context) error {
	select {
	case <-u.watched:
		return u.paths.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

func speakerConfig(cfg *configs.BGP, n neighbors) bgp.Config {
	return bgp.Config{
		ASN: cfg.ASN, RouterID: cfg.RouterID, HoldTime: cfg.HoldTime.Std(),
		Neighbors: n.sessions, Farewell: n.farewell,
	}
}

// readNeighbors reads the secrets of the neighbors too, and checks all of it.
func readNeighbors(cfg *configs.BGP) (neighbors, error) {
	var errs []error
	n := neighborsOf(cfg, func(key, path string) string {
		secret, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("bgp.%s: %w", key, err))
		}
		return string(bytes.TrimRight(secret, "\r\n"))
	})
	if err := errors.Join(errs...); err != nil {
		return neighbors{}, err
	}
	return n, n.check(cfg)
}

// neighborsOf puts a config's neighbors into the speaker's terms, and BFD's.
// Secret returns what is in the file that a key names.
func neighborsOf(cfg *configs.BGP, secret func(key, path string) string) neighbors {
	n := neighbors{farewell: cfg.ShutdownText}
	for i, c := range cfg.Neighbors {
		at := fmt.Sprintf("neighbors[%d].", i)
		session := bgp.Neighbor{
			Address: c.Address, Port: c.Port, ASN: c.ASN,
			LocalAddress: c.LocalAddress, TTLSecurity: c.TTLSecurity,
			// Also where it is that of all: a change of the latter is one of
			// this neighbor then.
			HoldTime: cfg.HoldTime.Std(), KeepaliveInterval: c.KeepaliveInterval.Std(),
		}
		if c.HoldTime != 0 {
			session.HoldTime = c.HoldTime.Std()
		}
		if c.PasswordFile != "" {
			session.Password = secret(at+"password_file", c.PasswordFile)
		}
		n.sessions = append(n.sessions, session)
		if c.BFD == nil {
			continue
		}
		peer := bfd.Peer{
			Address: c.Address, LocalAddress: c.LocalAddress,
			TransmitInterval: c.BFD.Interval.Std(), Multiplier: uint8(c.BFD.Multiplier),
		}
		if a := c.BFD.Auth; a != nil {
			peer.Auth = bfd.Auth{
				Meticulous: a.Meticulous,
				Keys:       []bfd.Key{{ID: uint8(a.KeyID), Secret: secret(at+"bfd.auth.key_file", a.KeyFile)}},
			}
		}
		n.paths = append(n.paths, peer)
	}
	return n
}

// check reports what the speaker and BFD would refuse, in all that a config may
// have them announce.
func (n neighbors) check(cfg *configs.BGP) error {
	errs := []error{speakerConfig(cfg, n).Check()}
	if err := bfd.Check(n.paths); err != nil {
		errs = append(errs, fmt.Errorf("bfd: %w", err))
	}
	for _, state := range configs.RouteStates() {
		if err := bgp.CheckAnnouncements(routesIn(cfg, func(netip.Prefix) string { return state })); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", state, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	return nil
}

// CheckBGP reports what is wrong with the bgp part of a valid config in the eyes
// of the speaker, as far as that does not depend on secrets.
func CheckBGP(cfg *configs.Pop) error {
	if cfg.BGP == nil {
		return nil
	}
	return neighborsOf(cfg.BGP, func(string, string) string { return "x" }).check(cfg.BGP)
}
