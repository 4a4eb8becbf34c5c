package rollout

// Action is what a node is to do.
type Action int

// The actions.
const (
	// Stay keeps the config in force.
	Stay Action = iota
	// Take puts the new document in force, and keeps the old one.
	Take
	// Return puts the old one in force again.
	Return
	// Settle keeps the new one for good.
	Settle
)

// Local is what a node knows of itself. Taken outlives the process.
type Local struct {
	Config string // sum of the config in force
	// Taken is the generation that the node began to take, until it has
	// returned or settled; 0 if none.
	Taken uint64
}

// Condition is how well a node is.
type Condition struct {
	Health    Health
	Why       string // the reason of Health
	Announced bool   // in full
	Draining  bool
}

// Follower is one node's side of rollouts. It remembers what has gone wrong, so
// that a node that was unwell for a moment between two of its reports cannot
// pass for one that was well all along.
type Follower struct {
	node    string
	resumed bool   // what the process before left has been looked at
	soaking bool   // this node has the generation, and its PoP has not soaked yet
	up      bool   // announced since it has the generation
	tried   uint64 // the generation that failed is about
	failed  string
}

// NewFollower returns the follower of a node.
func NewFollower(node string) *Follower { return &Follower{node: node} }

// Failure returns what has gone wrong at this node, and with which generation.
// It is 0 if nothing has.
func (f *Follower) Failure() (generation uint64, why string) { return f.tried, f.failed }

// Next returns what to do, given the rollout that the store holds now. It must
// not be called on what was read before the store was lost.
func (f *Follower) Next(r Rollout, l Local) Action {
	step, n := r.find(f.node)
	current := l.Taken != 0 && l.Taken == r.Generation
	f.soaking = current && step == r.Turn && !r.Phase.Final()
	if !f.resumed {
		f.resumed = true
		if f.soaking && r.Phase != Returning {
			f.fail(r.Generation, "the agent ended while the config soaked")
		}
	}
	switch {
	case l.Taken != 0 && !current:
		return r.past(l.Taken)
	case current && r.Phase == Done:
		return Settle
	case current && (r.Phase == Returning || r.Phase.Final()):
		return Return
	case f.soaking && f.tried == r.Generation:
		// The report says it, so everybody will. A config that ends its agent
		// over and over would leave no time to wait for them.
		return Return
	case current || step < 0 || l.Config != n.Old || n.Old == n.New:
		return Stay
	case step < r.Turn && (r.Phase == Running || r.Phase == Paused):
		return Take // the PoP has it already; this node came back without
	case step == r.Turn && r.Open && r.Phase == Running && f.tried != r.Generation:
		return Take
	}
	return Stay
}

// past is what to do about a generation that is not the present one. About one
// that nobody remembers, nothing: an operator has had time to look.
func (r Rollout) past(generation uint64) Action {
	for _, o := range r.Past {
		switch {
		case o.Generation != generation:
		case o.Phase == Done:
			return Settle
		default:
			return Return
		}
	}
	return Stay
}

// Took says that the node has put its document in force, and how well it was.
func (f *Follower) Took(c Condition) { f.soaking, f.up = true, c.Announced }

// Refused says that it could not, and why. Nothing has changed at the node.
func (f *Follower) Refused(generation uint64, why string) { f.fail(generation, why) }

// Observe takes the node's condition whenever it changes. While its config
// soaks, anything but good health and a full announcement is a failure; a drain
// excuses the announcement, and not knowing is neither.
func (f *Follower) Observe(generation uint64, c Condition) {
	if !f.soaking {
		return
	}
	f.up = f.up || c.Announced
	switch {
	case c.Health == Unhealthy:
		f.fail(generation, "unhealthy on the new config: "+c.Why)
	case f.up && !c.Announced && !c.Draining:
		f.fail(generation, "not announced any more on the new config: "+c.Why)
	}
}

// fail keeps the first failure of a generation.
func (f *Follower) fail(generation uint64, why string) {
	if f.tried != generation {
		f.tried, f.failed = generation, shorten(why)
	}
}
