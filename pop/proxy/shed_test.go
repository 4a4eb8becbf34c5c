package proxy

import (
	"net/http"
	"net/http/httptrace"
	"testing"
	"time"
)

func TestShedderHoldsForAWhile(t *testing.T) {
	t0 := time.Unix(1000, 0)
	s := shedder{began: t0}
	for _, percent := range []int{-1, 0, 1, 50, 100, 101} {
		s.set(t0, percent)
		want := min(max(percent, 0), 100)
		if got := s.percent(t0.Add(ShedTTL - time.Millisecond)); got != want {
			t.Errorf("%d: %d, want %d", percent, got, want)
		}
		if got := s.percent(t0.Add(ShedTTL)); got != 0 {
			t.Errorf("%d: still %d after its time", percent, got)
		}
	}
}

func TestShedderRefusesItsShare(t *testing.T) {
	s := shedder{began: time.Now()}
	count := func(percent int) (n int) {
		s.set(time.Now(), percent)
		for range 10000 {
			if s.refuses() {
				n++
			}
		}
		return n
	}
	if n := count(0); n != 0 {
		t.Errorf("%d of none were refused", n)
	}
	if n := count(100); n != 10000 {
		t.Errorf("%d of all were refused", n)
	}
	if n := count(30); n < 2500 || n > 3500 { // ten standard deviations
		t.Errorf("%d of 10000 were refused, want about 3000", n)
	}
}

// Whatever the protocol, a client that is refused hears when to come again, and
// that it should not come on this connection. The agent's probe is served.
func TestShedRequestsAreAnswered(t *testing.T) {
	origin := serveHTTP(t, func(http.ResponseWriter, *http.Request) {})
	e := newEdge(t, origin)
	e.listenQUIC()
	h3 := e.quicClient()
	for _, v := range append(variants, struct{ name, listener, protocol, url string }{"h3", secure, "h3", "https://shop.example"}) {
		t.Run(v.name, func(t *testing.T) {
			client := h3
			if v.protocol != "h3" {
				client = e.client(v.listener, v.protocol)
			}
			get := func(probe bool) (int, http.Header, bool, bool) {
				req, err := http.NewRequest(http.MethodGet, v.url+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if probe {
					req.Header.Set(ProbeField, "token")
				}
				reused := false
				req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				readAll(t, res.Body)
				res.Body.Close()
				return res.StatusCode, res.Header, res.Close, reused
			}
			if status, _, _, _ := get(false); status != 200 {
				t.Fatalf("status %d", status)
			}
			e.worker.shedder.set(time.Now(), 100)
			defer e.worker.shedder.set(time.Now(), 0)
			if status, _, _, _ := get(true); status != 204 {
				t.Errorf("the probe got %d", status)
			}
			status, header, last, _ := get(false)
			if status != 503 || header.Get("Retry-After") != shedRetry {
				t.Errorf("status %d, %v", status, header)
			}
			if v.protocol == "h1" && !last {
				t.Error("the connection is to be kept")
			}
			e.worker.shedder.set(time.Now(), 0)
			eventually(t, "a request on another connection", func() bool {
				status, _, _, reused := get(false)
				return status == 200 && (v.protocol == "h3" || !reused)
			})
		})
	}
	eventually(t, "the count", func() bool { return metric(t, e, "anyedge_proxy_requests_total", "outcome", "shed") == 5 })
	e.worker.shedder.set(time.Now(), 40)
	if v := e.worker.Vitals(); v.Shed != 40 {
		t.Errorf("vitals say %d", v.Shed)
	}
}
