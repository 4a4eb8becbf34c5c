package matrix

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// fields go through with all their lines, those of one name in their order.
func fields(c *cell) {
	req := c.request("GET", plain, "/fields", nil)
	var many []string
	for i := range manyFields {
		many = append(many, fmt.Sprint(i))
		req.Header.Set(fmt.Sprintf("X-Line-%02d", i), fmt.Sprint(i))
	}
	req.Header["X-Many"] = many
	req.Header["Cookie"] = []string{"c=1", "d=2; e=3"}
	req.Header.Set("X-Empty", "")
	req.Header.Set("X-Bytes", "tab\there, \xe4\xf6 obs-text")
	res, body := c.expect(200, req)
	var got received
	if err := json.Unmarshal(body, &got); err != nil {
		c.Fatal(err)
	}
	for _, side := range []struct {
		name   string
		fields map[string][]string
	}{{"request", got.Fields}, {"response", res.Header}} {
		if !slices.Equal(side.fields["X-Many"], many) {
			c.Errorf("%s: X-Many %q", side.name, side.fields["X-Many"])
		}
		for i := range manyFields {
			if line := side.fields[fmt.Sprintf("X-Line-%02d", i)]; !slices.Equal(line, []string{fmt.Sprint(i)}) {
				c.Errorf("%s: X-Line-%02d %q", side.name, i, line)
			}
		}
		if empty, there := side.fields["X-Empty"]; !there || !slices.Equal(empty, []string{""}) {
			c.Errorf("%s: X-Empty %q", side.name, empty)
		}
	}
	// HTTP/2 and HTTP/3 split Cookie, and what comes out is one value again
	// (RFC 9113, 8.2.3).
	if cookie := strings.Join(got.Fields["Cookie"], "; "); cookie != "c=1; d=2; e=3" {
		c.Errorf("Cookie %q", got.Fields["Cookie"])
	}
	if !slices.Equal(res.Header["Set-Cookie"], cookies) {
		c.Errorf("Set-Cookie %q", res.Header["Set-Cookie"])
	}
	// JSON replaces what is no UTF-8, one character per byte.
	if v := got.Fields.Get("X-Bytes"); v != "tab\there, \ufffd\ufffd obs-text" {
		c.Errorf("X-Bytes %q", v)
	}
}

// targets reach the origin byte for byte.
var targets = []string{
	"/target",
	"/target?",
	"/target/?a=b?c/d&e",
	"/target//double///slash/",
	"/target/%7Etilde/%41/a%20b",
	"/target/a:b@c!$&'()*+,=",
	"/target?q=%00%ff%2F..%2f&x=a+b%2Bc&;=;",
	"/target/%E4%BD%A0?%E5%A5%BD=%e5",
	"/target?" + "long=" + strings.Repeat("0123456789", 300),
}

func target(c *cell) {
	for _, want := range targets {
		if got := c.told(c.request("GET", plain, want, nil)); got.Target != want || got.Host != c.back.host(plain) {
			c.Errorf("%q of %s arrived as %q of %s", want, c.back.host(plain), got.Target, got.Host)
		}
	}
}

// parallel sends many requests at once on one connection and wants to each its
// own answer.
func parallel(c *cell) {
	const requests = 50
	size := func(i int) int64 { return int64(i * i * 40) }
	if c.front.version == 1 {
		pipelined(c, requests, size)
		return
	}
	getBytes(c, 1, false) // so that there is a connection
	before := c.client.dials.Load()
	var tasks sync.WaitGroup
	for i := range requests {
		req := c.request("POST", plain, "/echo", unsized{content(uint64(i), size(i))})
		tasks.Go(func() {
			res, err := c.client.Do(req)
			if err != nil {
				c.Errorf("request %d: %v", i, err)
				return
			}
			defer res.Body.Close()
			got, n, err := sum(res.Body)
			if want, _, _ := sum(content(uint64(i), size(i))); err != nil || got != want {
				c.Errorf("request %d: %d of %d bytes, right: %t, error %v", i, n, size(i), got == want, err)
			}
			if trailer := res.Trailer.Get("X-Sum"); trailer != got {
				c.Errorf("request %d: trailer %q", i, trailer)
			}
		})
	}
	tasks.Wait()
	if n := c.client.dials.Load(); n != before {
		c.Errorf("%d connections, want 1", n-before+1)
	}
}

// pipelined sends all requests on a connection of HTTP/1.1 before it reads the
// answers, which come in order (RFC 9112, 9.3.2).
func pipelined(c *cell, requests int, size func(int) int64) {
	conn, err := c.front.dial(c.ctx, c.edge)
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	stop := closeAtEnd(c.ctx, conn)
	defer stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for i := range requests {
			fmt.Fprintf(conn, "POST /received?%d HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", i, c.back.host(plain), size(i))
			if _, err := io.Copy(conn, content(uint64(i), size(i))); err != nil {
				c.Errorf("send request %d: %v", i, err)
				return
			}
		}
	})
	responses := newResponses(conn)
	for i := range requests {
		res, err := responses.next("POST")
		if err != nil {
			conn.Close()
			c.Fatalf("response %d: %v", i, err)
		}
		var got received
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			c.Fatalf("response %d: %v", i, err)
		}
		io.Copy(io.Discard, res.Body)
		if want, _, _ := sum(content(uint64(i), size(i))); got.Sum != want || got.Target != fmt.Sprintf("/received?%d", i) {
			c.Fatalf("response %d is to %s, with %d of %d bytes", i, got.Target, got.Bytes, size(i))
		}
	}
}
