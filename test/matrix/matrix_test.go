// Package matrix tests that every front protocol of anyedge works with every
// back protocol: clients × fronts × backs.
//
// The thing under test is what users run: one agent with its worker, started
// from this tree, with a config file, on loopback addresses of its own. The
// clients and origins around it are other people's wherever there are any:
// curl, nghttp, h2load, net/http, quic-go, coder/websocket, grpc-go and nginx.
// So what is agreed on is HTTP, and not what this module takes for it.
//
// There are three tables: fronts, backs and checks. A cell of the matrix is
// named by all three, as in h2c→h1tls/trailers. A cell that cannot exist says
// why in its skip; so does one whose tool is not installed. Short mode takes
// one back for each front.
//
// # Concurrency
//
// Pairs run in parallel on one edge, as in service. The checks of a pair run
// one after the other.
package matrix

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"anyedge/internal/cli"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// edgeVariable makes the test binary be anyedge.
const edgeVariable = "ANYEDGE_MATRIX_EDGE"

// extendedConnect makes net/http's server take WebSocket over HTTP/2. It is
// read when the program starts.
const extendedConnect = "http2xconnect=1"

func TestMain(m *testing.M) {
	if os.Getenv(edgeVariable) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	if debug := os.Getenv("GODEBUG"); !strings.Contains(debug, extendedConnect) {
		os.Setenv("GODEBUG", strings.TrimPrefix(debug+","+extendedConnect, ","))
		binary, err := os.Executable()
		if err == nil {
			err = syscall.Exec(binary, os.Args, os.Environ())
		}
		fmt.Fprintf(os.Stderr, "start again with %s: %v\n", extendedConnect, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// A check is a column of the matrix.
type check struct {
	name string
	// impossible says why the pair cannot be checked; "" if it can. nil: every
	// pair can.
	impossible func(f *front, b *back) string
	run        func(c *cell)
}

// A cell is one check of one pair, while it runs.
type cell struct {
	*testing.T
	ctx    context.Context // ends when the cell takes too long
	name   string          // unique
	edge   *edge
	front  *front
	back   *back
	client *client // of the pair
}

func TestMatrix(t *testing.T) {
	e := startEdge(t)
	for i, f := range fronts {
		for j, b := range backs {
			if testing.Short() && i != j {
				continue
			}
			pair := f.name + "→" + b.name
			t.Run(pair, func(t *testing.T) {
				t.Parallel()
				client := f.newClient(e)
				defer client.close()
				for _, check := range checks {
					t.Run(check.name, func(t *testing.T) {
						if check.impossible != nil {
							if why := check.impossible(f, b); why != "" {
								t.Skip(why)
							}
						}
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						check.run(&cell{t, ctx, pair + "/" + check.name, e, f, b, client})
					})
				}
			})
		}
	}
}
