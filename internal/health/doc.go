// Package health turns raw check results into a verdict that is fit to move
// traffic.
//
// A [Counter] absorbs single results: so many in a row turn a check healthy or
// unhealthy. A [Judge] joins several checks, distrusts those that went silent,
// and holds a subject down for longer the more often it flaps, so that a
// subject on the edge does not pull its traffic to and fro.
//
// The package does no I/O and reads no clock. Every call is given the time, and
// what a Judge says depends only on the sequence of calls that told it
// something, never on how often it was asked.
//
// # Concurrency
//
// Neither type is safe for concurrent use. Both belong to one goroutine; a
// [Verdict] is a value of its own and may be handed to others.
package health
