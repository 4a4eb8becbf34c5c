// Package fleet is the state that the nodes of an edge share: each node's
// report of itself, operators' drains, withdraw leases, the ring of session
// ticket keys, the inventory of backends, and what steers clients: measured
// round-trip times and the plan made from them.
//
// It has two layers. A [Store] keeps keys and values: [Consul] for a real
// fleet, [Memory] for a fleet of one process, and [Handler] to let several
// processes of one machine share a Memory over the part of Consul's HTTP API
// that the Consul client here uses. On top, [Fleet] gives each kind of value a
// type, validates it when it is written and again when it is read, and keeps a
// [View] of all of it current.
//
// # What a reader can rely on
//
// The View only ever changes to values that decode and validate as a whole. A
// value that does not is counted, logged once, listed in [View.Rejected], and
// the last good one under that key stays. When the store is out of reach the
// whole View stays, with Connected false; it is the caller's to decide what
// old knowledge is good for. Nothing here deletes knowledge because of silence.
//
// # Keys
//
//	reports/NODE              Report, bound to the node's session
//	state/drains/SCOPE/NAME   Drain
//	state/prefix-drains/SCOPE/NAME/ADDRESS_LENGTH
//	                          Drain of one prefix
//	state/overrides/SCOPE/NAME
//	                          Override; followed by /ADDRESS_LENGTH for one prefix
//	state/steer-overrides/SUM SteerOverride
//	state/leases              the document of withdraw leases, wishes for one, and a freeze
//	state/holders/NODE        proof that NODE's lease, or wish, is alive, bound to its session
//	state/ring                ticket keys, sealed
//	state/rollout             the newest rollout of configs, and how far it has come
//	documents/SUM             a config that a rollout names
//	dnssec/ZONE               keys that the zone is signed with, sealed
//	state/inventory/POOL      {"backends":[{"address":"10.1.0.4:8080","weight":2,"zone":"a"}]}
//	plan                      Plan, of the DNS nodes
//	rtt/NODE                  RTT, sealed, bound to a long session of the node's own
//	queries/NODE              Queries of a DNS node, likewise
//
// Reports change all the time and the rest hardly ever, so they are followed
// apart: a drain does not wait behind reports, and a report does not fetch the
// ring again. The plan changes with every solve, so it is followed by itself, and
// round-trip times and queries are read by DNS nodes only. Values are JSON, so that an
// operator can read them and write drains and inventory with Consul's own tools.
// Keys are secret, and where clients are is nobody else's business: the ring,
// the keys of zones, round-trip times and queries are sealed ([Sealer]).
//
// # Access
//
// In Consul, a token with these rules is enough for everything here; the last
// two are for the [Catalog]:
//
//	key_prefix "anyedge/" { policy = "write" }
//	session_prefix ""     { policy = "write" }
//	service_prefix ""     { policy = "read" }
//	node_prefix ""        { policy = "read" }
//
// # Concurrency
//
// Stores, Fleet, Sealer and Catalog are safe for concurrent use. A View is
// immutable. Nothing runs before [Fleet.Run] or [Catalog.Follow] is called, and
// nothing is left running when they return. A Memory's sessions end by timers
// that hold no goroutine.
package fleet
