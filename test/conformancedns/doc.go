// Package conformancedns holds "anyedge gslb" against other servers and against
// what RFC 8906 says that every server must do.
//
//	make conformance-dns
//
// One test asks the questions of RFC 8906 section 8 with dig. One makes zones at
// random, of all kinds of names that RFC 1034 section 4.3.2 tells apart, serves
// them with anyedge, Knot and NSD, and compares the answers to thousands of
// questions for names in, beside and below what is there. One has Unbound, which
// caches by client subnet (RFC 7871), ask for thousands of clients: none may get an
// answer that was meant for others. One has Zonemaster check zones, unsigned and
// signed, in a network namespace with root servers of its own. Three have signed
// zones validated, with both algorithms and both ways of denial: thousands of
// answers by Unbound, which knows no more than the key of the root, one of each
// kind by delv, and zones as a whole by DNSViz, which has to find nothing to warn
// of. Others copy zones from and to other servers: one has Knot sign zones, and
// compares all answers with those of a Knot and an NSD that copy them too.
//
// The package has tests only. ANYEDGE_CONFORMANCE_DNS=1 runs them; with the value
// "installed", those skip that need a program that is not installed; without it, all
// do.
package conformancedns
