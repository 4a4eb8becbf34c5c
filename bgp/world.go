package bgp

import (
	"sync"
)

// world is every engine of this process. GoBGP keeps its best path options in
// package variables that each starting server writes and that every server's
// loop reads. The values are the same, yet it would be a data race, so a start
// stops the other loops for that moment.
var world struct {
	// A start holds it, reading outside a loop holds the read side.
	sync.RWMutex
	running map[*engine]bool // guarded by the write side
}

// joinWorld runs start, which starts e, while no other engine works.
func (e *engine) joinWorld(start func() error) error {
	world.Lock()
	defer world.Unlock()
	var nudges sync.WaitGroup
	defer nudges.Wait()
	for other := range world.running {
		g := newGate()
		other.gate.Store(g)
		nudges.Go(other.nudge)
		<-g.reached
		defer close(g.open)
	}
	if err := start(); err != nil {
		return err
	}
	if world.running == nil {
		world.running = make(map[*engine]bool)
	}
	world.running[e] = true
	return nil
}

// leaveWorld runs end, which ends e's loop, while no engine starts.
func (e *engine) leaveWorld(end func()) {
	world.Lock()
	defer world.Unlock()
	delete(world.running, e)
	end()
}
