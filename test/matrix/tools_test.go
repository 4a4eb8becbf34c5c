package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

var toolChecks = []check{
	{name: "curl", impossible: noCurl, run: curl},
	{name: "curl-origin-dies", impossible: noCurl, run: curlBroken},
	{name: "field-order", impossible: noCurl, run: fieldOrder},
	{name: "nghttp", impossible: onlyHTTP2("nghttp"), run: nghttp},
	{name: "h2load", impossible: onlyHTTP2("h2load"), run: h2load},
	{name: "nginx", impossible: func(f *front, b *back) string {
		switch {
		case b.name != "h1":
			return "nginx 1.22 is an origin of HTTP/1.1; the back h1 has it"
		case nginxPath() == "":
			return "nginx is not installed"
		}
		return ""
	}, run: nginx},
}

func noCurl(f *front, _ *back) string {
	if f.curl == nil {
		return "Debian's curl has no HTTP/3; quic-go's client does the checks"
	}
	return noTool("curl")
}

// onlyHTTP2 is for tools that speak nothing else.
func onlyHTTP2(tool string) func(*front, *back) string {
	return func(f *front, _ *back) string {
		if f.version != 2 {
			return tool + " speaks HTTP/2 only"
		}
		return noTool(tool)
	}
}

func noTool(tool string) string {
	if _, err := exec.LookPath(tool); err != nil {
		return tool + " is not installed"
	}
	return ""
}

// command runs a tool and returns what it printed. The status is 0 if it ended
// well.
func (c *cell) command(name string, args ...string) (out []byte, status int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, patience-time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		c.Fatalf("%s: %v %s", name, err, errOut.Bytes())
	}
	return append(out, errOut.Bytes()...), cmd.ProcessState.ExitCode()
}

// curl runs curl on a path of an origin.
func (c *cell) curl(k kind, path string, args ...string) (out []byte, status int) {
	c.Helper()
	host := c.back.host(k)
	args = slices.Concat([]string{
		"--silent", "--show-error", "--globoff", "--path-as-is", "--cacert", c.edge.caFile,
		"--resolve", fmt.Sprintf("%s:%d:%s", host, c.front.port, c.edge.address),
	}, c.front.curl, args, []string{fmt.Sprintf("%s://%s:%d%s", c.front.scheme(), host, c.front.port, path)})
	return c.command("curl", args...)
}

// good is curl for what must work.
func (c *cell) good(k kind, path string, args ...string) []byte {
	c.Helper()
	out, status := c.curl(k, path, args...)
	if status != 0 {
		c.Fatalf("curl %s: exit status %d\n%.1000s", path, status, out)
	}
	return out
}

func curl(c *cell) {
	// More than fits into one window, and less than the time for all pairs.
	const size = 1 << 20
	body, _ := io.ReadAll(content(2, size))
	c.checksum("GET", bytes.NewReader(c.good(plain, fmt.Sprintf("/bytes?seed=2&n=%d", size))), 2, size)
	file := filepath.Join(c.TempDir(), "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		c.Fatal(err)
	}
	for _, framing := range []string{"Content-Type: x/y", "Transfer-Encoding: chunked"} {
		if c.front.version == 2 && framing == "Transfer-Encoding: chunked" {
			continue // curl makes nothing of it on HTTP/2
		}
		got := c.good(plain, "/echo", "--data-binary", "@"+file, "--header", framing)
		c.checksum("POST with "+framing, bytes.NewReader(got), 2, size)
	}
	version := map[int]string{1: "HTTP/1.1", 2: "HTTP/2"}[c.front.version]
	for _, test := range []struct {
		path string
		args []string
		want string // heads and body, without fields that are not looked at
	}{
		{"/early", nil, version + " 103|" + version + " 200|x-final: yes|after the hints"},
		{"/status?code=204", nil, version + " 204|etag: \"tag\""},
		{"/status?code=304", nil, version + " 304|etag: \"tag\""},
		{"/bytes?n=5&length", []string{"--head"}, version + " 200|content-length: 5"},
		{"/status?code=404", nil, version + " 404|etag: \"tag\""},
	} {
		out := string(c.good(plain, test.path, append(test.args, "--include")...))
		left := strings.ToLower(out)
		for part := range strings.SplitSeq(test.want, "|") {
			_, after, found := strings.Cut(left, strings.ToLower(part))
			if !found {
				c.Errorf("%s: no %q in its place in\n%s", test.path, part, out)
				break
			}
			left = after
		}
	}
}

func curlBroken(c *cell) {
	for _, how := range []string{"?", "?length"} {
		if out, status := c.curl(plain, "/die"+how, "--output", os.DevNull); status == 0 {
			c.Errorf("/die%s: passed for complete: %s", how, out)
		}
	}
}

// fieldOrder shows that lines of different names stay in order too.
func fieldOrder(c *cell) {
	var args, want []string
	for i := range manyFields {
		name := fmt.Sprintf("x-%c%02d", 'z'-i%26, i%7)
		args = append(args, "--header", fmt.Sprintf("%s: %d", name, i))
		want = append(want, fmt.Sprintf("%s: %d", name, i))
	}
	out := c.good(lines, "/", append(args, "--include")...)
	var request, response []string
	head, body, _ := strings.Cut(string(out), "\r\n\r\n")
	for line := range strings.SplitSeq(body, "\n") {
		if _, _, ok := numbered(line); ok {
			request = append(request, line)
		}
	}
	for line := range strings.SplitSeq(head, "\r\n") {
		if _, _, ok := numbered(line); ok {
			response = append(response, line)
		}
	}
	if !slices.Equal(request, want) {
		c.Errorf("to the origin: %q", request)
	}
	if !slices.Equal(response, want) { // which returns them as it got them
		c.Errorf("to the client: %q", response)
	}
}

// numbered splits one of the lines of fieldOrder, which are no fields that the
// edge sets by itself.
func numbered(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ": ")
	_, err := strconv.Atoi(value)
	return name, value, ok && err == nil && len(name) == 5 && strings.HasPrefix(name, "x-")
}

func nghttp(c *cell) {
	file := filepath.Join(c.TempDir(), "body")
	body, _ := io.ReadAll(content(4, 300_000))
	if err := os.WriteFile(file, body, 0o600); err != nil {
		c.Fatal(err)
	}
	authority := "--header=:authority: " + c.back.host(plain)
	base := c.front.scheme() + "://" + c.edge.at(c.front.port)
	out, status := c.command("nghttp", "--no-verify-peer", authority, "--data="+file, "--trailer=x-sent: by nghttp", base+"/echo")
	if status != 0 || !bytes.Equal(out, body) {
		c.Errorf("exit status %d, %d bytes: %.300q", status, len(out), out[:min(300, len(out))])
	}
	want, _, _ := sum(content(4, 300_000))
	out, status = c.command("nghttp", "--no-verify-peer", "--verbose", "--null-out", authority, "--data="+file, "--trailer=x-sent: by nghttp", base+"/echo")
	text := string(out)
	if status != 0 || !strings.Contains(text, "x-sum: "+want) || !strings.Contains(text, "x-came: by nghttp") || strings.Contains(text, "RST_STREAM") {
		c.Errorf("exit status %d\n%s", status, text[max(0, len(text)-3000):])
	}
}

func h2load(c *cell) {
	out, status := c.command("h2load", "--requests=200", "--clients=2", "--max-concurrent-streams=50",
		"--header=:authority: "+c.back.host(plain), c.front.scheme()+"://"+c.edge.at(c.front.port)+"/bytes?n=20000")
	if status != 0 || !bytes.Contains(out, []byte("200 succeeded, 0 failed, 0 errored, 0 timeout")) || !bytes.Contains(out, []byte("status codes: 200 2xx")) {
		c.Errorf("exit status %d\n%s", status, out)
	}
}

// nginx is an origin that net/http's ways do not shape.
func nginx(c *cell) {
	res, body := c.expect(200, c.request("GET", other, "/1k", nil))
	if len(body) != nginxSize || res.Header.Get("Etag") == "" {
		c.Errorf("%d bytes, %v", len(body), res.Header)
	}
	req := c.request("GET", other, "/1k", nil)
	req.Header.Set("If-None-Match", res.Header.Get("Etag"))
	c.expect(304, req)
	req = c.request("GET", other, "/1k", nil)
	req.Header.Set("Range", "bytes=10-19")
	if _, body := c.expect(206, req); len(body) != 10 {
		c.Errorf("range of %d bytes", len(body))
	}
	if res, body := c.expect(200, c.request("HEAD", other, "/1k", nil)); len(body) != 0 || res.ContentLength != nginxSize {
		c.Errorf("HEAD: %d bytes of %d", len(body), res.ContentLength)
	}
	c.expect(404, c.request("GET", other, "/nothing", nil))
	c.expect(405, c.request("POST", other, "/1k", strings.NewReader("a body that is not wanted")))
	c.expect(200, c.request("GET", other, "/1k", nil))
}
