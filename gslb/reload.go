package gslb

import (
	"context"
	"time"

	"anyedge/configs"
	"anyedge/internal/audit"
)

// ConfigStatus is how a node's config file is doing.
type ConfigStatus struct {
	File string `json:"file"`
	// LastGood is when the config in force was read.
	LastGood time.Time `json:"last_good"`
	// LastError is why the newest reload was refused; empty when it was not.
	LastError string    `json:"last_error,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
}

// Config returns how the node's config file is doing.
func (n *Node) Config() ConfigStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	status := n.read
	status.File = n.file
	return status
}

// Reload reads the config file again, with all that it names. On error nothing
// changes, and the status says why until a reload succeeds.
func (n *Node) Reload(ctx context.Context) error {
	return n.ReloadBy(ctx, audit.Actor{From: "signal"})
}

// ReloadBy is Reload for somebody in particular.
func (n *Node) ReloadBy(_ context.Context, who audit.Actor) error {
	n.reloads.Lock()
	defer n.reloads.Unlock()
	err := n.reload()
	n.server.m.updated("config", nil, err)
	n.mu.Lock()
	if err != nil {
		n.read.LastError, n.read.FailedAt = err.Error(), time.Now()
	} else {
		n.read = ConfigStatus{LastGood: time.Now()}
	}
	n.mu.Unlock()
	return n.audit.Done(who, audit.Entry{Act: audit.Reload, On: "config " + n.file}, err)
}

// reload is Reload with n.reloads held.
func (n *Node) reload() error {
	cfg, err := configs.LoadGSLB(n.file)
	if err != nil {
		return err
	}
	clients, err := readClients(cfg) // which takes a while if they are many
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := configs.RestartNeeded(n.cfg, cfg); err != nil {
		return err
	}
	in := n.tableInput(cfg, clients, time.Now())
	table, err := BuildTable(in)
	if err != nil {
		return err
	}
	certificate, err := readCertificate(cfg)
	if err != nil {
		return err
	}
	secrets, err := readCookieSecrets(cfg)
	if err != nil {
		return err
	}
	shared, err := readKeys(cfg)
	if err != nil {
		return err
	}
	ring, err := newKeyring(shared)
	if err != nil {
		return err
	}
	keys, err := n.keys.plan(cfg)
	if err != nil {
		return err
	}
	before := n.server.keys.Swap(&ring) // a zone that is new may be copied at once
	if err := n.server.Set(zonesOf(cfg), table); err != nil {
		n.server.keys.Store(before)
		return err
	}
	n.keys.set(keys)
	n.server.SetIdentity(cfg.NSID, secrets)
	n.server.SetLogQueries(cfg.Log.Requests)
	if certificate != nil {
		n.certificate.Store(certificate)
	}
	n.cfg, n.clients, n.input, n.expires = cfg, clients, in, table.NextExpiry()
	if n.outcome != nil && !n.outcome.Fits(in.Pops) {
		n.outcome = nil
	}
	n.planning.changed()
	return nil
}
