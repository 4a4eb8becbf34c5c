// Package ops is the operator's side of a process: an HTTP server with a JSON
// API, metrics, health and debugging, the client that the command line uses to
// talk to it, and a plain status page. It knows nothing of what the process does;
// the caller hands in endpoints.
//
// # Security
//
// The API has no authentication of its own. It is meant for loopback or a
// management network, and it defends itself against what a browser on such a
// network may be talked into:
//
//   - The Host field must be an IP address or "localhost". A name that an
//     attacker's DNS rebinds to this address is refused.
//   - A request that another site makes a browser send is refused, whatever its
//     method; a link that a person follows is not.
//   - A request that changes state must carry Content-Type: application/json,
//     which no HTML form can send.
//   - /debug/ answers only clients on the same host.
//
// # Concurrency
//
// A [Server] serves requests concurrently and calls the functions it was given
// from many goroutines at once. A [Client] is a value and may be shared.
package ops
