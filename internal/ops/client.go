package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
)

const (
	// callTimeout bounds a call; it is longer than an endpoint may take.
	callTimeout = endpointTimeout + 5*time.Second
	// maxAnswer bounds the answer to a call.
	maxAnswer = 64 << 20
)

// A Client calls the API of a process. It goes to the address itself, past any
// proxy, and keeps no connection.
type Client struct {
	// Address of the server.
	Address netip.AddrPort
}

// Get decodes the JSON at path into out; nil throws it away. The path may carry
// a query. The error is fit to show to an operator; it wraps an [*Error] when
// the server refused the call.
func (c Client) Get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON to path and decodes the answer as Get does. With no
// answer (204), out is left alone.
func (c Client) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	return c.call(ctx, http.MethodPost, path, body, out)
}

func (c Client) call(ctx context.Context, method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Address.String()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	stranger := func(err error) error {
		return fmt.Errorf("%s does not speak the anyedge admin API: %s %s answered %s: %w", c.Address, method, path, resp.Status, err)
	}
	switch {
	case resp.StatusCode >= 400:
		var e errorBody
		if err := json.Unmarshal(answer, &e); err != nil {
			return stranger(err)
		}
		if e.Error == "" {
			return stranger(errors.New("no error in the answer"))
		}
		return fmt.Errorf("anyedge admin at %s: %w", c.Address, newError(resp.StatusCode, "%s", e.Error))
	case resp.StatusCode == http.StatusNoContent || out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return stranger(err)
	}
	return nil
}

// unreachable puts a failure to get an answer in words, with the kernel's reason
// in place of the layers around it.
func (c Client) unreachable(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = errno
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no anyedge admin at %s: %w", c.Address, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer from anyedge admin at %s in time: %w", c.Address, context.DeadlineExceeded)
	}
	return fmt.Errorf("no answer from anyedge admin at %s: %w", c.Address, err)
}
