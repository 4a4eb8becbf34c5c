package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/configs"
)

// stage is a lab without an edge: a story can be played on it, under a load
// that is answered in memory. It lives in a synctest bubble.
type stage struct {
	*Lab
	out  bytes.Buffer
	fail atomic.Int64  // so many requests fail
	hold chan struct{} // not nil: requests wait until it is closed, then fail
}

func newStage(t *testing.T) *stage {
	s := new(stage)
	cfg := configs.DefaultLab()
	s.Lab = &Lab{Options: Options{Out: &s.out, Log: quiet}, cfg: cfg, load: &load{
		rate: cfg.Rate, clients: []*http.Client{{Transport: s}}, urls: []string{"http://edge/"},
	}}
	return s
}

// RoundTrip implements http.RoundTripper. The tests change hold only while
// nothing runs.
func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	if hold := s.hold; hold != nil {
		select {
		case <-hold:
			return nil, errors.New("cut off")
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if s.fail.Add(-1) >= 0 {
		return nil, errors.New("no luck")
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("x")), Request: r}, nil
}

// lines are the story's lines about steps.
func (s *stage) lines() map[string]string {
	lines := make(map[string]string)
	for line := range strings.Lines(s.out.String()) {
		if word, rest, ok := strings.Cut(line, " "); ok && (word == "ok" || word == "FAILED") {
			name, _, _ := strings.Cut(strings.TrimSpace(rest), "  ")
			lines[name] = word + " " + line[strings.LastIndex(line, "  ")+2:len(line)-1]
		}
	}
	return lines
}

// see returns a step's run that sees something for a while.
func see(span time.Duration, seen string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { time.Sleep(span); return seen, err }
}

func TestStoryGoesOnAfterAFailedStepAndNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		err := s.play(t.Context(), []step{
			{"first", none, see(time.Second, "all well", nil)},
			{"second", none, see(time.Second, "", errors.New("the route stayed"))},
			{"third", none, see(time.Second, "well again", nil)},
			{"fourth", none, see(time.Second, "", errors.New("nothing came"))},
		})
		if err == nil || err.Error() != "failed: second; fourth" {
			t.Errorf("error %v", err)
		}
		got := s.lines()
		for name, want := range map[string]string{"first": "ok all well", "second": "FAILED the route stayed", "third": "ok well again", "fourth": "FAILED nothing came"} {
			if got[name] != want {
				t.Errorf("%s: %q, want %q", name, got[name], want)
			}
		}
		if strings.Contains(s.out.String(), "Every step held") {
			t.Errorf("it says that every step held:\n%s", s.out.String())
		}
	})
}

func TestStoryThatHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		if err := s.play(t.Context(), []step{{"only", none, see(10*time.Second, "all well", nil)}}); err != nil {
			t.Error(err)
		}
		if text := s.out.String(); !strings.HasSuffix(text, "Every step held.\n") || !strings.Contains(text, "0 failed") || !strings.Contains(text, "10000 ms") {
			t.Errorf("%s", text)
		}
		sent := s.load.mark().sent
		time.Sleep(time.Second)
		if s.load.mark().sent != sent {
			t.Error("the load goes on after the story")
		}
	})
}

func TestTolerance(t *testing.T) {
	for _, c := range []struct {
		what   string
		allow  tolerance
		fail   int64
		failed string // "": the step holds
	}{
		{"none, none failed", none, 0, ""},
		{"none, one failed", none, 1, "1 requests failed, none may: "},
		{"in flight, one failed", inFlight, 1, ""},
		{"in flight, more failed than flew", inFlight, 2, "2 requests failed, at most the 1 in flight may: "},
		{"shown, many failed", shown, 50, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				err := s.play(t.Context(), []step{{"event", c.allow, func(context.Context) (string, error) {
					s.fail.Store(c.fail)
					time.Sleep(time.Second)
					return "seen", nil
				}}})
				line := s.lines()["event"]
				if c.failed == "" && (err != nil || line != "ok seen") {
					t.Errorf("%v, %q; want ok", err, line)
				}
				if c.failed != "" && (err == nil || !strings.HasPrefix(line, "FAILED "+c.failed) || !strings.Contains(line, "no luck")) {
					t.Errorf("%v, %q; want failed with %q and the reason", err, line, c.failed)
				}
			})
		})
	}
}

// A failure right after a step is over is counted where it belongs.
func TestLateFailureIsTheSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		err := s.play(t.Context(), []step{
			{"event", none, func(context.Context) (string, error) {
				time.AfterFunc(settle/2, func() { s.fail.Store(1) })
				return "seen", nil
			}},
			{"next", none, see(time.Second, "well", nil)},
		})
		if err == nil || err.Error() != "failed: event" {
			t.Errorf("error %v", err)
		}
	})
}

// As many requests as were in flight when a step began may fail with it.
func TestInFlightToleranceIsWhatFlew(t *testing.T) {
	for _, extra := range []int64{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.hold = make(chan struct{})
			for range 5 {
				go s.load.request(t.Context(), s.load.clients[0], "http://edge/")
			}
			synctest.Wait()
			hold := s.hold
			s.hold = nil
			err := s.playStep(t.Context(), step{"event", inFlight, func(context.Context) (string, error) {
				close(hold)
				s.fail.Store(extra)
				if extra > 0 {
					s.load.request(t.Context(), s.load.clients[0], "http://edge/")
				}
				return "seen", nil
			}})
			if (err != nil) != (extra > 0) {
				t.Errorf("%d failed of 5 in flight and %d more: %v", s.load.mark().failed, extra, err)
			}
			if s.load.mark().failed != 5+extra {
				t.Errorf("%d failed, want %d", s.load.mark().failed, 5+extra)
			}
		})
	}
}

// A story under less load than promised proves less than it says.
func TestWeakLoadFailsTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.load.rate = 100
		err := s.play(t.Context(), []step{{"only", none, see(10*time.Second, "well", nil)}})
		if err == nil || !strings.HasPrefix(err.Error(), "failed: load of ") {
			t.Errorf("error %v", err)
		}
		s.cfg.Rate = 100 // as asked for
		if err := s.play(t.Context(), []step{{"only", none, see(10*time.Second, "well", nil)}}); err != nil {
			t.Error(err)
		}
	})
}

func TestStoryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		lost := errors.New("the router ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		err := s.play(ctx, []step{
			{"cut short", none, func(ctx context.Context) (string, error) {
				cancel(lost)
				return "", ctx.Err()
			}},
			{"never begun", none, func(context.Context) (string, error) { t.Error("begun"); return "", nil }},
		})
		if err != lost || time.Since(start) > time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestEventuallyKeepsTheLastReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Lab)
		tries := 0
		if err := l.eventually(t.Context(), "it", time.Minute, func(context.Context) error {
			if tries++; tries < 10 {
				return errors.New("not yet")
			}
			return nil
		}); err != nil || tries != 10 {
			t.Errorf("%v after %d tries", err, tries)
		}
		// The last try ends with the time and says only that; the one before
		// knew why.
		reason := errors.New("served by nobody")
		err := l.eventually(t.Context(), "pop serves", time.Second, func(ctx context.Context) error {
			if dl, _ := ctx.Deadline(); time.Until(dl) > 100*time.Millisecond {
				return reason
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, reason) || err.Error() != "pop serves: not within 1s: served by nobody" {
			t.Errorf("error %v", err)
		}
	})
}

// Every step of the story has its own name, by which a failure is reported.
func TestStepsHaveNamesOfTheirOwn(t *testing.T) {
	l := &Lab{cfg: configs.DefaultLab()}
	seen := make(map[string]bool)
	for _, s := range l.steps() {
		if s.name == "" || seen[s.name] || len(s.name) > 34 || s.run == nil {
			t.Errorf("step %q: no name, one that another has, or one that does not fit its column", s.name)
		}
		seen[s.name] = true
	}
	l.cfg = labOf(2)
	if two := len(l.steps()); two != len(seen)-1 {
		t.Errorf("%d steps with two PoPs, %d with three: one needs a third", two, len(seen))
	}
}
