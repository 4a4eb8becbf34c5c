package fleet_test

import (
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/consultest"
	"anyedge/internal/fleet/fleettest"
)

func newMemory(testing.TB) fleet.Store { return fleet.NewMemory() }

// newHandled returns a Consul client that talks to a Memory.
func newHandled(t testing.TB) fleet.Store {
	server := httptest.NewServer(fleet.Handler(fleet.NewMemory()))
	t.Cleanup(server.Close)
	return dial(t, fleet.ConsulConfig{Address: server.URL, MinTTL: 1})
}

func dial(t testing.TB, cfg fleet.ConsulConfig) *fleet.Consul {
	t.Helper()
	c, err := fleet.NewConsul(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestMemoryKeepsTheContract(t *testing.T) {
	fleettest.Run(t, fleettest.Suite{New: newMemory, TTL: 800 * time.Millisecond, ExpiresWithin: 800 * time.Millisecond})
}

func TestHandlerKeepsTheContract(t *testing.T) {
	fleettest.Run(t, fleettest.Suite{New: newHandled, TTL: 800 * time.Millisecond, ExpiresWithin: 800 * time.Millisecond})
}

func TestConsulKeepsTheContract(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	var number atomic.Int64
	fleettest.Run(t, fleettest.Suite{
		New: func(t testing.TB) fleet.Store {
			prefix := fmt.Sprintf("contract-%d/", number.Add(1))
			return dial(t, fleet.ConsulConfig{Address: server.Address(), Prefix: prefix})
		},
		TTL:           10 * time.Second,
		ExpiresWithin: 12 * time.Second,
	})
}
