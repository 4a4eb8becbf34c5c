// Command anyedge is an anycast edge: proxy, BGP speaker, GSLB DNS server and
// the operator's tools in one binary.
package main

import (
	"os"

	"anyedge/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
