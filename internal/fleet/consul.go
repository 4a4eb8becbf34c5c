package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Limits that Consul puts on the ttl of a session.
const (
	consulMinTTL = 10 * time.Second
	consulMaxTTL = 24 * time.Hour
)

// How Consul words what has no status code of its own.
const (
	invalidSession = "invalid session"
	staleIndex     = "index is stale"
	lockHeld       = "lock is already held"
	lockDelayed    = "due to lock delay"
)

// lockDelay is how long Consul keeps a key from being bound again after its
// session ended by force. The default of 15 s, which the client library's zero
// stands for, would keep a restarted node out that long; the delay protects
// holders that act on a lock they have lost, and a holder here reads its
// session's end from [ErrSession] instead.
const lockDelay = time.Millisecond

// ConsulConfig says how to reach Consul. Only Address is required.
type ConsulConfig struct {
	// Address is host:port, "http://…", "https://…" or "unix:///path".
	Address string
	// TokenFile holds the ACL token. It is read again when it changes; while it
	// cannot be read the last token goes on being used. Without it the client
	// library's own environment variables apply.
	TokenFile string
	// Prefix is put before every key in Consul and taken off again: users of
	// this Store do not see it. Default "anyedge/".
	Prefix string
	// CAFile verifies the server's certificate, in PEM; it turns TLS on.
	CAFile string
	// CertFile and KeyFile authenticate this client, in PEM; they turn TLS on,
	// and are read again for every connection.
	CertFile, KeyFile string
	// Datacenter owns the keys. Default: that of the agent asked.
	Datacenter string
	// MinTTL is the shortest session that the server takes; a shorter one asked
	// for becomes this long. Default 10s, as Consul demands. A [Handler] takes
	// any, so set 1ns to have short sessions there.
	MinTTL time.Duration
}

// Consul is a [Store] in Consul's key-value store.
//
// Get and List ask the leader and have it confirm that it still leads. Watch
// uses Consul's default consistency, which can be behind only while an old
// leader has not noticed that it was replaced. Sessions carry no health checks:
// the death of a Consul agent ends nothing by itself, only a missing renewal.
//
// Make one with [NewConsul].
type Consul struct {
	client    *api.Client
	transport *http.Transport
	prefix    string
	minTTL    time.Duration
}

// NewConsul returns a client. It reads the files that cfg names but does not
// talk to Consul, so it succeeds while Consul is away.
func NewConsul(cfg ConsulConfig) (*Consul, error) {
	address, transport, err := newTransport(cfg)
	if err != nil {
		return nil, fmt.Errorf("consul %s: %w", cfg.Address, err)
	}
	var round http.RoundTripper = transport
	if cfg.TokenFile != "" {
		tokens := &tokenFile{path: cfg.TokenFile, next: transport}
		if _, err := tokens.current(); err != nil {
			return nil, fmt.Errorf("consul %s: token: %w", cfg.Address, err)
		}
		round = tokens
	}
	client, err := api.NewClient(&api.Config{
		Address:    address.Host,
		Scheme:     address.Scheme,
		PathPrefix: strings.TrimSuffix(address.Path, "/"),
		Datacenter: cfg.Datacenter,
		HttpClient: &http.Client{Transport: round},
	})
	if err != nil {
		return nil, fmt.Errorf("consul %s: %w", cfg.Address, err)
	}
	c := &Consul{client: client, transport: transport, prefix: cfg.Prefix, minTTL: cfg.MinTTL}
	if c.prefix == "" {
		c.prefix = "anyedge/"
	}
	if c.minTTL == 0 {
		c.minTTL = consulMinTTL
	}
	return c, nil
}

// Close lets go of idle connections. Calls under way are not disturbed.
func (c *Consul) Close() { c.transport.CloseIdleConnections() }

// Get implements [Store].
func (c *Consul) Get(ctx context.Context, key string) (Entry, error) {
	q := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	pair, _, err := c.client.KV().Get(c.prefix+key, q)
	if err != nil {
		return Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if pair == nil {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return c.entry(pair), nil
}

// List implements [Store].
func (c *Consul) List(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	return c.list(prefix, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
}

// ListStale is List from whichever server is asked, with or without a leader:
// it may be old by any amount.
func (c *Consul) ListStale(ctx context.Context, prefix string) ([]Entry, error) {
	entries, _, err := c.list(prefix, (&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	return entries, err
}

// Watch implements [Store].
func (c *Consul) Watch(ctx context.Context, prefix string, after uint64) ([]Entry, uint64, error) {
	// Consul adds up to a sixteenth to the wait. A server that is silent for
	// longer than that will not answer on this connection any more.
	ctx, cancel := context.WithTimeout(ctx, watchWait+watchWait/8)
	defer cancel()
	q := &api.QueryOptions{WaitIndex: after, WaitTime: watchWait}
	return c.list(prefix, q.WithContext(ctx))
}

func (c *Consul) list(prefix string, q *api.QueryOptions) ([]Entry, uint64, error) {
	pairs, meta, err := c.client.KV().List(c.prefix+prefix, q)
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	entries := make([]Entry, len(pairs))
	for i, pair := range pairs {
		entries[i] = c.entry(pair)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return entries, meta.LastIndex, nil
}

func (c *Consul) entry(pair *api.KVPair) Entry {
	value := pair.Value
	if value == nil {
		value = []byte{} // Consul writes an empty value as null
	}
	return Entry{
		Key:     strings.TrimPrefix(pair.Key, c.prefix),
		Value:   value,
		Index:   pair.ModifyIndex,
		Session: Session(pair.Session),
	}
}

// CompareAndSwap implements [Store]. It is a transaction of one operation,
// because the answer to a transaction carries the new index.
func (c *Consul) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (uint64, error) {
	if err := checkWrite(key, value); err != nil {
		return 0, err
	}
	op := &api.KVTxnOp{Verb: api.KVCAS, Key: c.prefix + key, Value: value, Index: prev}
	if value == nil {
		if prev == 0 {
			return 0, fmt.Errorf("delete %s: an index is required", key)
		}
		op.Verb = api.KVDeleteCAS
	}
	q := (&api.QueryOptions{}).WithContext(ctx)
	ok, answer, _, err := c.client.Txn().Txn(api.TxnOps{{KV: op}}, q)
	switch {
	case err != nil:
		return 0, fmt.Errorf("write %s: %w", key, err)
	case !ok && len(answer.Errors) == 1 && strings.Contains(answer.Errors[0].What, staleIndex):
		return 0, fmt.Errorf("write %s: %w", key, ErrConflict)
	case !ok && len(answer.Errors) == 1:
		return 0, fmt.Errorf("write %s: %s", key, answer.Errors[0].What)
	case !ok:
		return 0, fmt.Errorf("write %s: transaction rolled back without a reason", key)
	case value == nil:
		return 0, nil
	case len(answer.Results) != 1 || answer.Results[0].KV == nil:
		return 0, fmt.Errorf("write %s: answer without an index", key)
	}
	return answer.Results[0].KV.ModifyIndex, nil
}

// Bind implements [Store].
func (c *Consul) Bind(ctx context.Context, key string, value []byte, s Session) error {
	if err := checkWrite(key, value); err != nil {
		return err
	}
	for tries := 3; ; tries-- {
		ok, err := c.acquire(ctx, key, value, s)
		switch {
		case err != nil:
			return fmt.Errorf("bind %s: %w", key, err)
		case ok:
			return nil
		case tries == 1 || !c.delayed(ctx, key):
			return fmt.Errorf("bind %s: %w", key, ErrConflict)
		}
		_ = sleep(ctx, 2*lockDelay) // the next try sees that ctx is done
	}
}

// BindAndSwap implements [Store].
func (c *Consul) BindAndSwap(ctx context.Context, b Binding, key string, value []byte, prev uint64) error {
	if err := checkPair(b, key, value); err != nil {
		return err
	}
	for tries := 3; ; tries-- {
		delayed, err := c.lockAndSwap(ctx, b, key, value, prev)
		if !delayed || tries == 1 {
			return err
		}
		_ = sleep(ctx, 2*lockDelay) // the next try sees that ctx is done
	}
}

// lockAndSwap is one transaction. delayed reports that it was refused for the
// lock delay after the end of the key's last holder, without a look at the rest.
func (c *Consul) lockAndSwap(ctx context.Context, b Binding, key string, value []byte, prev uint64) (delayed bool, err error) {
	ok, answer, _, err := c.client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVLock, Key: c.prefix + b.Key, Value: b.Value, Session: string(b.Session)}},
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: c.prefix + key, Value: value, Index: prev}},
	}, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return false, fmt.Errorf("write %s: %w", key, err)
	}
	if ok {
		return false, nil
	}
	var why string
	for _, e := range answer.Errors {
		switch {
		case strings.Contains(e.What, invalidSession):
			return false, fmt.Errorf("bind %s: %w", b.Key, ErrSession)
		case strings.Contains(e.What, lockDelayed):
			return true, fmt.Errorf("bind %s: %w", b.Key, ErrConflict)
		case strings.Contains(e.What, lockHeld):
			return false, fmt.Errorf("bind %s: %w", b.Key, ErrConflict)
		case strings.Contains(e.What, staleIndex):
			return false, fmt.Errorf("write %s: %w", key, ErrConflict)
		}
		why = e.What
	}
	return false, fmt.Errorf("write %s: transaction rolled back: %s", key, cmp.Or(why, "without a reason"))
}

// acquire asks Consul once to write value and lock the key for s.
func (c *Consul) acquire(ctx context.Context, key string, value []byte, s Session) (ok bool, err error) {
	pair := &api.KVPair{Key: c.prefix + key, Value: value, Session: string(s)}
	ok, _, err = c.client.KV().Acquire(pair, (&api.WriteOptions{}).WithContext(ctx))
	var status api.StatusError
	if errors.As(err, &status) && strings.Contains(status.Body, invalidSession) {
		err = ErrSession
	}
	return ok, err
}

// delayed reports whether a refused lock is free: then Consul refused it for the
// lock delay after the end of its last holder, without a look at who asked.
func (c *Consul) delayed(ctx context.Context, key string) bool {
	e, err := c.Get(ctx, key)
	return errors.Is(err, ErrNotFound) || err == nil && e.Session == ""
}

// NewSession implements [Store].
func (c *Consul) NewSession(ctx context.Context, name string, ttl time.Duration) (Session, error) {
	if ttl <= 0 {
		return "", fmt.Errorf("session %s: ttl %v is not above zero", name, ttl)
	}
	id, _, err := c.client.Session().CreateNoChecks(&api.SessionEntry{
		Name:      name,
		TTL:       min(max(ttl, c.minTTL), consulMaxTTL).String(),
		Behavior:  api.SessionBehaviorDelete,
		LockDelay: lockDelay,
	}, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("session %s: %w", name, err)
	}
	if id == "" {
		return "", fmt.Errorf("session %s: answer without an id", name)
	}
	return Session(id), nil
}

// RenewSession implements [Store].
func (c *Consul) RenewSession(ctx context.Context, s Session) error {
	if s == "" {
		return fmt.Errorf("renew: %w", ErrSession)
	}
	entry, _, err := c.client.Session().Renew(string(s), (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	if entry == nil {
		return fmt.Errorf("renew: %w", ErrSession)
	}
	return nil
}

// EndSession implements [Store].
func (c *Consul) EndSession(ctx context.Context, s Session) error {
	if s == "" {
		return nil
	}
	if _, err := c.client.Session().Destroy(string(s), (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}
