package xdp

import (
	"iter"
	"time"

	"anyedge/gslb/steer"
)

// Table is what the program knows. Answers, their Steering and its parts are
// shared by pointer: what is equal by pointer is kept once. Whoever hands a Table
// over must not change it any more.
type Table struct {
	// Names yields every name that has an answer of its own, or that keeps the names
	// below it from the answers of those above: wire form, in lower case. Equal
	// tables that yield in one order make equal images.
	Names iter.Seq2[string, Entry]
}

// Entry is what is known of a name, and of the names below it that have no entry
// on the way.
type Entry struct{ At, Below Answers }

// Answers are the answers to the questions for a name. A nil one is left to the
// sockets.
type Answers struct {
	Types []Typed
	Other *Answer // to all types that are not in Types
}

// Typed is the answer to questions for one type.
type Typed struct {
	Type   uint16
	Answer *Answer
}

// Answer is an answer as it goes out behind the question.
type Answer struct {
	// ID tells answers apart for the rate limit, also those of one table from those
	// of the next.
	ID    uint64
	Flags uint16 // AA and the rcode
	// Counts are those of answer, authority and additional records, without OPT and
	// the addresses of Steering.
	Counts [3]uint16
	Body   []byte
	// Base is the length of the question's name that Body was packed for, and Moving
	// is where Body has compression pointers that grow with a longer name.
	Base   int
	Moving []uint16
	// Secure leaves queries for DNSSEC records to the sockets.
	Secure bool

	// Steering, if not nil, says whose addresses follow Body, in records of this
	// owner, a compression pointer, and this TTL.
	Steering *steer.Decisions
	Family   steer.Family
	Owner    uint16
	TTL      time.Duration
}
