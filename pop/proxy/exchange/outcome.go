package exchange

// Outcome says how an exchange ended. It is a closed set, fit for a metric
// label.
type Outcome string

// The outcomes. They say who is to blame, which a status code does not.
const (
	OutcomeOK            Outcome = "ok"             // the origin's whole response was sent, whatever its status
	OutcomeUpgraded      Outcome = "upgraded"       // the connection left HTTP, and ended
	OutcomeProbe         Outcome = "probe"          // the worker answered the agent's probe
	OutcomeRefused       Outcome = "refused"        // the request is malformed or ambiguous
	OutcomeNoRoute       Outcome = "no_route"       // no route matches
	OutcomeNoBackend     Outcome = "no_backend"     // the pool has no usable backend
	OutcomeOverloaded    Outcome = "overloaded"     // the worker's memory is spent
	OutcomeShed          Outcome = "shed"           // refused so that others can be served
	OutcomeConnectFailed Outcome = "connect_failed" // no backend that was tried could be connected to
	OutcomeOriginTimeout Outcome = "origin_timeout" // no response head in time
	OutcomeOriginFailed  Outcome = "origin_failed"  // the origin gave no valid response head
	OutcomeOriginAborted Outcome = "origin_aborted" // the origin's body broke off or stalled
	OutcomeClientTimeout Outcome = "client_timeout" // the client's body stalled
	OutcomeClientGone    Outcome = "client_gone"    // the client went away, or took no data in time
	OutcomeInternal      Outcome = "internal"       // a fault of the worker
)
