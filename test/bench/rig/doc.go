// Package rig starts anyedge and its peers HAProxy, nginx and Caddy side by
// side: on loopback, in front of the same origin, with the same certificate and
// the same features. The benchmark and the differential test stand on it.
//
// What is the same: HTTP/1.1 kept alive to the origin, no access log,
// X-Forwarded-For and -Proto set, TLS 1.3 with X25519 and AES-128-GCM, HTTP/2
// on the TLS address, two threads or processes. What is not: anyedge also sets
// Forwarded, Via, a request id and the other X-Forwarded fields, so any
// difference in work is to its disadvantage.
//
// # Concurrency
//
// A [Rig] is made once and then only read. A [Process] may be used by several
// goroutines at once, but only one of them calls Stop.
package rig
