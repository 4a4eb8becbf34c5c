// Package tickets is the ring of session ticket keys that the nodes of a fleet
// share, and its schedule.
//
// A TLS session made at one node resumes at another only if both hold the key
// that sealed its ticket. So a key is published long before it is used: when
// one becomes current, by everybody's own clock, the next one is put into the
// ring at once. A node whose view of the ring is late still has every key that
// anybody encrypts with, and when the shared store is gone the nodes rotate
// once more, together, and then stay on the last key they know.
//
// A key that no longer encrypts stays for Keep rotations, so that tickets made
// with it resume, and is then erased: who later steals the ring cannot open
// what was recorded before (a TLS 1.2 ticket protects its session with nothing
// but this key).
//
// # How a ring is shared
//
// Any node may do the rotating. It reads the ring, calls [Ring.Advance] when
// [Ring.Due] says so, and writes the result back with a compare-and-swap. Of
// two nodes that do so at once one loses, throws its result away and reads
// again; either result is valid. Nothing else is agreed upon: which key
// encrypts follows from the ring and the time.
//
// With a view of the ring that is at most Propagation old, and clocks that
// differ by at most Propagation, any node opens what any other sealed, from
// then on for Keep·Rotate − Propagation. Clocks that differ by more cost
// resumptions, never the ability to encrypt. The one exception is the very
// first ring, which is used at once: nodes that have not got it yet cannot
// open what it sealed.
//
// The package does no I/O and reads no clock; randomness is passed in. Rings
// are values: no method changes its receiver or what it points to, so a ring
// may be shared between goroutines as long as nobody writes to its Keys.
package tickets
