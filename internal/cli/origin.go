package cli

import (
	"context"
	"crypto/tls"
	"net/netip"

	"anyedge/internal/daemon"
	"anyedge/origin/demo"
)

// runOrigin runs a demo origin.
func runOrigin(c *invocation) error {
	address := netip.MustParseAddrPort("127.0.0.1:9000")
	c.flags.TextVar(&address, "address", address, "`ip:port` to listen on")
	name := c.flags.String("name", "origin", "what the origin calls itself in answers")
	region := c.flags.String("region", "", "the region it says it is in")
	cert := c.flags.String("cert", "", "certificate `file`; with --key, TLS is served")
	key := c.flags.String("key", "", "key `file` of the certificate")
	if err := c.parse(0); err != nil {
		return err
	}
	if (*cert == "") != (*key == "") {
		return usagef("--cert and --key go together")
	}
	log, err := daemon.NewLogger(c.errOut, "info", "text")
	if err != nil {
		return err
	}
	server := &demo.Server{Name: *name, Region: *region, Address: address, Log: log}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return err
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	ctx, stop := daemon.Terminate(context.Background())
	defer stop()
	return server.Run(ctx)
}
