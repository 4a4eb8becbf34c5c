package cli

import (
	"context"
	"net/http"

	"anyedge/internal/audit"
	"anyedge/internal/ops"
)

// ReloadRequest is the body of POST /v1/reload.
type ReloadRequest struct {
	By string `json:"by"`
}

// reloadEndpoint has a node read its config again; reload is what SIGHUP does too.
func reloadEndpoint(reload func(context.Context, audit.Actor) error) ops.Endpoint {
	return ops.Endpoint{Method: http.MethodPost, Path: "/v1/reload", Doc: "read the config file and all that it names again, whole or not at all",
		Handle: func(ctx context.Context, r ops.Request) (any, error) {
			var req ReloadRequest
			if err := r.Decode(&req); err != nil {
				return nil, err
			}
			if err := reload(ctx, audit.Actor{By: req.By, From: r.Remote.String()}); err != nil {
				return nil, ops.Conflict("refused, everything stays as it was:\n%w", err)
			}
			return nil, nil
		}}
}

// runReload has a node read its config again, and says what it refuses.
func runReload(c *invocation) error {
	address := c.adminFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	ctx := context.Background()
	client, _, err := c.findNode(ctx, *address)
	if err != nil {
		return err
	}
	return client.Post(ctx, "/v1/reload", ReloadRequest{By: operator()}, nil)
}
