// Package rollout takes a set of new configs through a fleet, one point of
// presence after the other.
//
// # What is rolled out
//
// A generation: one config document for each node of the set, named by its
// SHA-256 sum. The unit of an order is the PoP: its nodes take their documents
// together, then soak together. The [Rollout] is one small value that the whole
// fleet shares; the documents themselves are elsewhere, under their sums.
//
// # Who decides
//
// Nobody leads. Every node runs the same two machines on what it sees of the
// fleet. A [Follower] says what its own node is to do: stay, take its new
// document, or return to the one before. A [Driver] says how the shared value is
// to change, and whoever sees it first writes it, by compare-and-swap:
//
//	running: the PoP at Turn waits until it is all well -> open
//	         open: its nodes take the generation and soak -> the next PoP, or done
//	returning: all that took it go back -> failed, or aborted by an operator
//
// A PoP has soaked when one observer has seen all of its nodes on the new
// document, healthy and announced without a break for as long as the rollout
// says, by that observer's own clock: the clocks of two hosts are never
// compared. An observer that loses sight of the store starts over, and a node
// without the store neither takes nor returns anything.
//
// The package does no I/O and reads no clock.
//
// # Concurrency
//
// A Rollout is a value. A Follower and a Driver each belong to one goroutine.
package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Phase is how far a rollout has come.
type Phase string

// The phases. The last three are final.
const (
	Running   Phase = "running"   // PoPs take their turns
	Paused    Phase = "paused"    // by an operator: no PoP moves on; trouble still turns it back
	Returning Phase = "returning" // who took the generation goes back
	Done      Phase = "done"      // every node of the set has the new document
	Failed    Phase = "failed"    // every node has the old one, because of Reason
	Aborted   Phase = "aborted"   // likewise, by an operator
)

// Phases lists every phase.
func Phases() []Phase { return []Phase{Running, Paused, Returning, Done, Failed, Aborted} }

// Final reports whether a rollout in this phase has ended.
func (p Phase) Final() bool { return p == Done || p == Failed || p == Aborted }

// Bounds on a rollout.
const (
	MaxNodes = 256
	MinSoak  = 100 * time.Millisecond
	MaxSoak  = 24 * time.Hour
	maxText  = 1024
	maxPast  = 16
)

// Rollout is the state of a rollout, shared by the fleet.
type Rollout struct {
	Generation uint64 `json:"generation"` // counts rollouts from 1
	Phase      Phase  `json:"phase"`
	// Reason is why it is paused, returning, failed or aborted.
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"` // who started it
	Note   string    `json:"note,omitempty"`
	At     time.Time `json:"at,omitzero"` // when, by the clock of the node that was asked
	// Soak is how long each PoP must stay well on the new documents; Take is
	// how long its nodes may need to get there.
	Soak  Span   `json:"soak"`
	Take  Span   `json:"take"`
	Steps []Step `json:"steps"`
	// Turn is the index of the step whose turn it is; those before have soaked.
	Turn int `json:"turn"`
	// Open lets the nodes of that step take their documents.
	Open    bool `json:"open,omitempty"`
	Aborted bool `json:"aborted,omitempty"` // Returning is an operator's doing
	// Past is how the newest rollouts before ended, for nodes that were away.
	Past []Outcome `json:"past,omitempty"`
}

// Step is one PoP.
type Step struct {
	Pop   string `json:"pop"`
	Nodes []Node `json:"nodes"`
}

// Node is one node's part.
type Node struct {
	Name string `json:"name"`
	Old  string `json:"old"` // sum of what it ran when the rollout was started
	New  string `json:"new"` // sum of its new document
}

// Outcome is how a rollout ended.
type Outcome struct {
	Generation uint64 `json:"generation"`
	Phase      Phase  `json:"phase"`
}

// Span is a duration that JSON shows as text, such as "2m0s".
type Span time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

// Sum names a document.
func Sum(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}

var (
	nameRegexp = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	sumRegexp  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Validate says what is wrong with r, or returns nil.
func (r Rollout) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(r.Generation > 0, "generation: zero")
	check(slices.Contains(Phases(), r.Phase), "phase: %.80q is none", string(r.Phase))
	for _, s := range []struct{ name, text string }{{"reason", r.Reason}, {"by", r.By}, {"note", r.Note}} {
		check(len(s.text) <= maxText, "%s: %d bytes, more than %d", s.name, len(s.text), maxText)
	}
	for _, s := range []struct {
		name string
		span Span
	}{{"soak", r.Soak}, {"take", r.Take}} {
		d := time.Duration(s.span)
		check(d >= MinSoak && d <= MaxSoak, "%s: %v is not within %v and %v", s.name, d, MinSoak, MaxSoak)
	}
	check(len(r.Steps) > 0, "steps: none")
	check(r.Turn >= 0 && r.Turn <= len(r.Steps), "turn: %d of %d steps", r.Turn, len(r.Steps))
	check((r.Phase == Done) == (r.Turn == len(r.Steps)), "turn: %d of %d steps, and %s", r.Turn, len(r.Steps), r.Phase)
	check(len(r.Past) <= maxPast, "past: more than %d", maxPast)
	nodes, pops, total := make(map[string]bool), make(map[string]bool), 0
	for i, s := range r.Steps {
		check(nameRegexp.MatchString(s.Pop), "steps[%d].pop: %.80q is not a name", i, s.Pop)
		check(!pops[s.Pop], "steps[%d].pop: %s again", i, s.Pop)
		check(len(s.Nodes) > 0, "steps[%d].nodes: none", i)
		pops[s.Pop] = true
		for k, n := range s.Nodes {
			check(nameRegexp.MatchString(n.Name), "steps[%d].nodes[%d].name: %.80q is not a name", i, k, n.Name)
			check(!nodes[n.Name], "steps[%d].nodes[%d].name: %s again", i, k, n.Name)
			check(sumRegexp.MatchString(n.New), "steps[%d].nodes[%d].new: not a sum", i, k)
			check(sumRegexp.MatchString(n.Old), "steps[%d].nodes[%d].old: not a sum", i, k)
			nodes[n.Name] = true
			total++
		}
	}
	check(total <= MaxNodes, "nodes: %d, more than %d", total, MaxNodes)
	return errors.Join(errs...)
}

// Encode returns r as it is stored.
func (r Rollout) Encode() ([]byte, error) { return json.Marshal(r) }

// Decode returns a valid rollout of what Encode made. Fields of a newer version
// are passed over.
func Decode(data []byte) (Rollout, error) {
	var r Rollout
	if err := json.Unmarshal(data, &r); err != nil {
		return Rollout{}, err
	}
	if err := r.Validate(); err != nil {
		return Rollout{}, err
	}
	return r, nil
}

// find returns the step of a node and its part; -1 if it has none.
func (r Rollout) find(node string) (int, Node) {
	for i, s := range r.Steps {
		for _, n := range s.Nodes {
			if n.Name == node {
				return i, n
			}
		}
	}
	return -1, Node{}
}

// Document returns the sum of a node's new document, or "".
func (r Rollout) Document(node string) string {
	_, n := r.find(node)
	return n.New
}
