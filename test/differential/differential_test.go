// Package differential sends generated malformed and ambiguous HTTP/1.1 messages
// through anyedge, HAProxy and nginx to an origin that records what it gets, and
// flags whatever is forwarded in a form that an origin could split differently.
//
// Two kinds of reader judge. A strict one reads the client's bytes and the
// forwarded bytes by the letter. Lenient ones, each with a liberty that real
// servers take, read the forwarded bytes and must come to the same result. Only
// anyedge must pass; the others stand in the report for comparison, as far as
// they are installed.
//
// ANYEDGE_DIFFERENTIAL=1 runs 6000 messages, =quick 1500.
// ANYEDGE_BIN names the binary; the default is bin/anyedge of this tree.
// ANYEDGE_DIFFERENTIAL_SEED takes other messages than the fixed ones.
package differential

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"anyedge/test/bench/rig"
)

const (
	fixedSeed     = 9112
	fullMessages  = 6000
	quickMessages = 1500
	// clients is how many messages are under way at a time.
	clients = 64
	// patience is how long a client waits for something to happen.
	patience = 400 * time.Millisecond
	// refusalPatience is the same for the close after a broken rule.
	refusalPatience = 2 * time.Second
)

func TestNothingIsForwardedThatAnOriginCouldSplit(t *testing.T) {
	n := fullMessages
	switch mode := os.Getenv("ANYEDGE_DIFFERENTIAL"); mode {
	case "":
		t.Skip("starts bin/anyedge, HAProxy and nginx: set ANYEDGE_DIFFERENTIAL to 1 or quick")
	case "quick":
		n = quickMessages
	case "1":
	default:
		t.Fatalf("ANYEDGE_DIFFERENTIAL is %q, want 1 or quick", mode)
	}
	seed := uint64(fixedSeed)
	if text := os.Getenv("ANYEDGE_DIFFERENTIAL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	// Not t.TempDir, whose parents only root may enter: nginx's workers must.
	dir, err := os.MkdirTemp("", "anyedge-differential-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := rig.New(dir, cmp.Or(os.Getenv("ANYEDGE_BIN"), "../../bin/anyedge"))
	if err != nil {
		t.Fatal(err)
	}

	messages := generate(seed, n)
	var proxies []rig.Kind // that were run
	tallies := make(map[rig.Kind]*tally)
	for _, kind := range []rig.Kind{rig.Anyedge, rig.HAProxy, rig.Nginx} {
		t.Run(string(kind), func(t *testing.T) {
			if kind != rig.Anyedge {
				if _, err := rig.Find(string(kind)); err != nil {
					t.Skipf("the report is without %s: %v", kind, err)
				}
			}
			tallies[kind] = through(t, r, kind, messages)
			proxies = append(proxies, kind)
		})
	}
	own := tallies[rig.Anyedge]
	if own == nil {
		return // it has failed
	}
	t.Logf("%d messages, seed %d\n%s", n, seed, report(proxies, tallies))
	for _, e := range own.examples {
		t.Errorf("%s (%d such of family %q): %s\nsent      %.1500q\nforwarded %.1500q\nanswered  %v, closed %t",
			e.problem.kind, own.alike[e.class], e.message.family, e.problem.detail, e.message.bytes, e.forwarded, e.seen.statuses, e.seen.closed)
	}
}

// through sends all messages through one proxy and judges what came out.
func through(t *testing.T, r *rig.Rig, kind rig.Kind, messages []message) *tally {
	t.Helper()
	origin, err := newRecorder()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.StartProxy(t.Context(), kind, origin.address())
	if err != nil {
		origin.close()
		t.Fatal(err)
	}
	answers := make([]answer, len(messages))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(clients)
	for i, m := range messages {
		group.Go(func() (err error) {
			answers[i], err = send(ctx, p.Clear, m)
			return err
		})
	}
	err = errors.Join(group.Wait(), p.Alive())
	p.Stop()
	records := origin.close()
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}

	got, strays := attribute(messages, records)
	for _, s := range strays {
		if kind == rig.Anyedge {
			t.Errorf("the origin got what belongs to no message: %.300q", s)
		}
	}
	sum := newTally()
	for i, m := range messages {
		sum.add(m, answers[i], got[i], judge(m, answers[i], got[i]))
	}
	return sum
}

var idPattern = regexp.MustCompile(`m(\d{6})/`)

// attribute sorts what the origin got by message, and by time within one.
func attribute(messages []message, records []record) (got [][][]byte, strays [][]byte) {
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.sequence, b.sequence) })
	got = make([][][]byte, len(messages))
	for _, r := range records {
		id := idPattern.FindSubmatch(r.bytes)
		if id == nil {
			// The rig asks whether the proxy serves; and the start of a head has
			// no id yet.
			if !bytes.HasPrefix(r.bytes, []byte("GET "+rig.SmallPath+" ")) && bytes.Contains(r.bytes, []byte("\n")) {
				strays = append(strays, r.bytes)
			}
			continue
		}
		if i, err := strconv.Atoi(string(id[1])); err == nil && i < len(messages) {
			got[i] = append(got[i], r.bytes)
		} else {
			strays = append(strays, r.bytes)
		}
	}
	return got, strays
}

// send writes a message and reads until the proxy closes, or all that is due
// has come, or nothing comes any more. An error means that the proxy is not
// there.
func send(ctx context.Context, to netip.AddrPort, m message) (seen answer, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return seen, err
	}
	defer c.Close()
	meant := strict(m.bytes)
	wait := patience
	if meant.refused != "" {
		wait = refusalPatience
	}
	c.SetWriteDeadline(time.Now().Add(refusalPatience))
	// A proxy may answer and close before it has read everything.
	_, _ = c.Write(m.bytes)

	in := bufio.NewReader(c)
	for {
		// Final responses that are due, and no refusal or truncation to wait for.
		if n := len(seen.statuses); meant.refused == "" && meant.rest == 0 && n > 0 && n == len(meant.requests) && meant.requests[n-1].complete {
			return seen, nil
		}
		c.SetReadDeadline(time.Now().Add(wait))
		res, err := http.ReadResponse(in, &http.Request{Method: methodOf(m, meant, len(seen.statuses))})
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode >= 200 {
				seen.statuses = append(seen.statuses, res.StatusCode)
			}
		}
		if err != nil {
			timeout, ok := errors.AsType[net.Error](err)
			seen.closed = !ok || !timeout.Timeout()
			return seen, nil
		}
	}
}

// methodOf is the method of the request that a response answers: the answer to
// HEAD has no body.
func methodOf(m message, meant reading, i int) string {
	if i < len(meant.requests) {
		return meant.requests[i].method
	}
	if i == 0 && bytes.HasPrefix(m.bytes, []byte("HEAD ")) {
		return "HEAD"
	}
	return "GET"
}

// tally sums up what became of the messages.
type tally struct {
	families map[string]*counts
	order    []string
	examples []example     // one of each class
	alike    map[class]int // how many there are of a class
}

// counts are of messages.
type counts struct {
	all, forwarded, refused, silent int
	problems                        [kinds]int
}

type class struct {
	family, detail string
	kind           kind
}

type example struct {
	class
	problem   problem
	message   message
	seen      answer
	forwarded [][]byte
}

func newTally() *tally { return &tally{families: make(map[string]*counts), alike: make(map[class]int)} }

func (t *tally) add(m message, seen answer, got [][]byte, problems []problem) {
	c := t.families[m.family]
	if c == nil {
		c = new(counts)
		t.families[m.family], t.order = c, append(t.order, m.family)
	}
	c.all++
	switch {
	case len(got) > 0:
		c.forwarded++
	case len(seen.statuses) > 0:
		c.refused++
	default:
		c.silent++
	}
	for _, p := range problems {
		c.problems[p.kind]++
		// Details with figures are alike when the words are.
		what := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, p.detail)
		words, _, _ := strings.Cut(what, `"`)
		k := class{m.family, words, p.kind}
		if t.alike[k]++; t.alike[k] == 1 {
			t.examples = append(t.examples, example{k, p, m, seen, got})
		}
	}
}

// report is a table of all families: what each proxy forwarded, refused with an
// answer, or dropped without one, and the problems.
func report(proxies []rig.Kind, tallies map[rig.Kind]*tally) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %-8s %5s %9s %7s %6s", "family", "proxy", "all", "forwarded", "refused", "silent")
	for k := range kinds {
		fmt.Fprintf(&b, " %13s", k)
	}
	b.WriteByte('\n')
	line := func(family string, kind rig.Kind, c counts) {
		fmt.Fprintf(&b, "%-20s %-8s %5d %9d %7d %6d", family, kind, c.all, c.forwarded, c.refused, c.silent)
		for _, n := range c.problems {
			fmt.Fprintf(&b, " %13d", n)
		}
		b.WriteByte('\n')
	}
	sums := make(map[rig.Kind]counts)
	for _, family := range tallies[proxies[0]].order {
		for _, kind := range proxies {
			c := *tallies[kind].families[family]
			line(family, kind, c)
			sum := sums[kind]
			sum.all, sum.forwarded, sum.refused, sum.silent = sum.all+c.all, sum.forwarded+c.forwarded, sum.refused+c.refused, sum.silent+c.silent
			for k, n := range c.problems {
				sum.problems[k] += n
			}
			sums[kind] = sum
		}
	}
	for _, kind := range proxies {
		line("all", kind, sums[kind])
	}
	return b.String()
}
