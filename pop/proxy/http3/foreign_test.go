package http3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/exchange"
)

// program finds a client that others have written.
func program(t *testing.T, name, from string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian package %s)", name, from)
	}
	return path
}

// A browser loads a page, which posts to its server over the same connection.
func TestChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes its time")
	}
	path := program(t, "chromium", "chromium")
	server, _ := certificate()
	spki := sha256.Sum256(server.Certificates[0].Leaf.RawSubjectPublicKeyInfo)
	posted := make(chan string, 1)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		html := exchange.Field{Name: "Content-Type", Value: "text/html"}
		switch x.Request.Path {
		case "/":
			x.Client.Respond(respond(200, `<title>waits</title><p id=p>waits</p><script>
fetch("/echo", {method: "POST", body: "x".repeat(300000)}).then(r => r.text()).then(s => { p.textContent = "echo of " + s })
</script>`, html))
		case "/echo":
			got := sum(x.Request.Body)
			posted <- fmt.Sprint(x.Request.Protocol, " ", got)
			x.Client.Respond(respond(200, strings.Fields(got)[1], html))
		default:
			x.Client.Respond(&exchange.Response{Status: 404, Length: 0})
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	origin := fmt.Sprintf("localhost:%d", e.addr.Port)
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
		"--user-data-dir="+filepath.Join(t.TempDir(), "profile"),
		"--host-resolver-rules=MAP localhost 127.0.0.1", "--origin-to-force-quic-on="+origin,
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]),
		"--virtual-time-budget=20000", "--dump-dom", "https://"+origin+"/")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	want := sum(strings.NewReader(strings.Repeat("x", 300000)))
	if !strings.Contains(string(out), "echo of "+strings.Fields(want)[1]) {
		t.Errorf("the page is %q: %v", out, err)
	}
	select {
	case got := <-posted:
		if got != "http/3 "+want {
			t.Errorf("posted %s", got)
		}
	default:
		t.Error("nothing was posted")
	}
}

// ngtcp2's example client.
func TestNgtcp2(t *testing.T) {
	path := program(t, "gtlsclient", "ngtcp2-client")
	got := make(chan string, 1)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		got <- fmt.Sprint(x.Request.Method, " ", x.Request.Authority, " ", x.Request.Path)
		ok(ctx, x)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	port := fmt.Sprint(e.addr.Port)
	cmd := exec.CommandContext(ctx, path, "--exit-on-all-streams-close", "127.0.0.1", port, "https://localhost:"+port+"/a")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	want := "GET localhost:" + port + " /a"
	if err != nil || !strings.Contains(string(out), "[:status: 200]") || !strings.Contains(string(out), fmt.Sprintf("body %d bytes", len(want))) {
		t.Errorf("%v\n%s", err, out)
	}
	if s := <-got; s != want {
		t.Errorf("%s, want %s", s, want)
	}
}
