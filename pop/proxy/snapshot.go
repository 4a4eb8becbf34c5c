package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"anyedge/configs"
	"anyedge/internal/health"
	"anyedge/internal/tickets"
	"anyedge/origin"
	"anyedge/pop/termination"
)

// Snapshot is all that a worker is to do: desired state, never a change to what
// was before. The agent makes it from a validated config with its defaults
// filled in; the worker mutates none of it.
//
// It holds secrets (certificate keys, ticket keys), so it is never logged and
// travels over the link only.
type Snapshot struct {
	// Generation numbers the agent's snapshots.
	Generation uint64 `json:"generation"`
	Node       string `json:"node"`
	Pop        string `json:"pop"`
	Region     string `json:"region"`
	// QUIC are the keys of HTTP/3, the same for every worker of an agent.
	QUIC QUICKeys `json:"quic"`
	// ProbeToken authenticates the agent's probes; empty answers none.
	ProbeToken string `json:"probe_token"`

	Listeners    []configs.Listener    `json:"listeners"`
	Certificates []termination.CertPEM `json:"certificates"`
	ClientCAs    []byte                `json:"client_cas,omitempty"`
	MinTLS       string                `json:"min_tls"` // "1.2" or "1.3"
	// Tickets are the session ticket keys; the first encrypts.
	Tickets []tickets.Key `json:"tickets"`

	Routes []configs.Route `json:"routes"`
	Pools  []Pool          `json:"pools"`

	// MaxConnections is the ceiling of client connections; 0 means a quarter
	// of the descriptor limit.
	MaxConnections int `json:"max_connections"`
	// BufferMemory is the ceiling of memory for bytes on their way; 0 is none.
	BufferMemory   configs.Size     `json:"buffer_memory"`
	VitalsInterval configs.Duration `json:"vitals_interval"`
	DrainTimeout   configs.Duration `json:"drain_timeout"`
	LogRequests    bool             `json:"log_requests"`
	// MeasureRTT has the worker report the round-trip times of clients: [RTTs].
	MeasureRTT bool `json:"measure_rtt"`
}

// QUICKeys are secrets of HTTP/3.
type QUICKeys struct {
	Reset [32]byte `json:"reset"` // of stateless resets (RFC 9000, 10.3)
	Token [32]byte `json:"token"` // of the proofs of address (RFC 9000, 8.1)
}

// Pool is a pool with its backends, wherever they are listed.
type Pool struct {
	Config   configs.Pool `json:"config"`
	CA       []byte       `json:"ca,omitempty"` // PEM; verifies the backends if Config.TLS is set
	Backends origin.Set   `json:"backends"`
	// States are what is known of backends, for a pool that is new to this
	// worker: a restarted one need not find out anew who is down.
	States map[netip.AddrPort]health.State `json:"states,omitempty"`
}

// terminationKey is what a terminator is made of, but for the ticket keys.
type terminationKey struct {
	certificates []termination.CertPEM
	clientCAs    string
	minTLS       string
}

func (k terminationKey) equal(o terminationKey) bool {
	return k.clientCAs == o.clientCAs && k.minTLS == o.minTLS &&
		slices.EqualFunc(k.certificates, o.certificates, func(a, b termination.CertPEM) bool {
			return string(a.Cert) == string(b.Cert) && string(a.Key) == string(b.Key)
		})
}

var tlsVersions = map[string]uint16{"": tls.VersionTLS12, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// newTerminator makes the terminator of a snapshot that has TLS listeners.
func newTerminator(k terminationKey, counters *termination.Counters) (*termination.Terminator, error) {
	version, ok := tlsVersions[k.minTLS]
	if !ok {
		return nil, fmt.Errorf("min_tls: %q is not 1.2 or 1.3", k.minTLS)
	}
	return termination.New(termination.Config{
		Certificates: k.certificates,
		ClientCAs:    []byte(k.clientCAs),
		MinVersion:   version,
		NextProtos:   []string{protocolH2, protocolH1},
		Counters:     counters,
		Domain:       "clients", // shared by every listener of every node
	})
}

// The protocols of listeners and pools, as in [configs.Listener] and
// [configs.Pool].
const (
	protocolH1   = "h1"
	protocolH2   = "h2"
	protocolH3   = "h3"
	protocolAuto = "auto"
)

// checkListener reports what is wrong with a listener on its own.
func checkListener(l configs.Listener) error {
	var errs []error
	if l.Name == "" {
		errs = append(errs, errors.New("name: missing"))
	}
	if l.Clear && slices.Contains(l.Protocols, protocolH3) {
		errs = append(errs, errors.New("protocols: h3 needs TLS"))
	}
	for i, p := range l.Protocols {
		if p != protocolH1 && p != protocolH2 && p != protocolH3 {
			errs = append(errs, fmt.Errorf("protocols[%d]: %q is not %s, %s or %s", i, p, protocolH1, protocolH2, protocolH3))
		}
	}
	if len(l.Protocols) == 0 {
		errs = append(errs, errors.New("protocols: none"))
	}
	b := l.Limits
	if min(b.HeaderBytes, b.URIBytes, b.BodyRate) <= 0 || min(b.HeaderFields, b.Streams, b.ClientConnections) <= 0 {
		errs = append(errs, errors.New("limits: not positive"))
	}
	t := l.Timeouts
	if min(t.Handshake, t.Header, t.Idle, t.BodyIdle) <= 0 {
		errs = append(errs, errors.New("timeouts: not positive"))
	}
	return errors.Join(errs...)
}
