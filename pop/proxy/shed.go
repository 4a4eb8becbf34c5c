package proxy

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// KindShed is the agent's message [Shed]. It has no answer: vitals show it.
const KindShed = "shed"

const (
	// ShedTTL is how long a [Shed] holds. The agent repeats it while it is meant,
	// so that a worker never refuses requests for an agent that has forgotten it.
	ShedTTL = 3 * time.Second
	// shedRetry is what clients that were refused are asked to wait.
	shedRetry = "5"
)

// Shed asks the worker to refuse a share of new requests.
type Shed struct {
	Percent int `json:"percent"` // 0 to 100
}

// shedder refuses a share of new requests with 503, so that the others can be
// served. The client is told to make no more on its connection: anycast may take
// the next one elsewhere.
type shedder struct {
	// order is the percent in the lowest byte, and above it the end of its
	// validity in milliseconds since began; 0 while nothing is refused.
	order atomic.Uint64
	began time.Time // set once, before use
}

// set refuses so many percent from now on, for ShedTTL.
func (s *shedder) set(now time.Time, percent int) {
	if percent = min(max(percent, 0), 100); percent == 0 {
		s.order.Store(0)
		return
	}
	s.order.Store(uint64(now.Add(ShedTTL).Sub(s.began).Milliseconds())<<8 | uint64(percent))
}

// percent returns what is in force at now.
func (s *shedder) percent(now time.Time) int {
	order := s.order.Load()
	if order == 0 || uint64(now.Sub(s.began).Milliseconds()) >= order>>8 {
		return 0
	}
	return int(order & 0xff)
}

// refuses says whether the next request is to be refused. While nothing is shed
// it costs one atomic load.
func (s *shedder) refuses() bool {
	return s.order.Load() != 0 && rand.IntN(100) < s.percent(time.Now())
}

// shed answers a request that is refused for lack of room.
func (f *forward) shed() {
	f.answer(503, exchange.OutcomeShed, "this node is short of room, try again", exchange.Field{Name: "Retry-After", Value: shedRetry})
}

// shed takes the agent's order.
func (c *control) shed(s Shed) { c.worker.shedder.set(time.Now(), s.Percent) }
