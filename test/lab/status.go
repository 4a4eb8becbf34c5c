package main

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/topology"
)

// status shows what routers, nodes and clients see.
func (c lab) status(ctx context.Context, l *edge.Lab) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ROUTER\tDAEMON\tASN\tSESSIONS")
	for _, m := range slices.Concat(l.Plan.Of(topology.CoreRouter, ""), l.Plan.Of(topology.PopRouter, "")) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", m.Name, m.Daemon, m.ASN, sessions(ctx, l, m.Name))
	}
	fmt.Fprintln(w, "\nNODE\tADDRESS\tANNOUNCEMENT\tREASON")
	for _, m := range l.Plan.Of(topology.Node, "") {
		s, err := l.Status(ctx, m.Name)
		if err != nil {
			fmt.Fprintf(w, "%s\t%s\t-\t%v\n", m.Name, m.Address(false), err)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Address(false), s.Announcement.State, s.Announcement.Reason)
	}
	fmt.Fprintln(w, "\nCLIENT\tADDRESS\tIPV4\tIPV6")
	for _, m := range l.Plan.Of(topology.ClientHost, "") {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Address(false), served(ctx, l, m.Name, false), served(ctx, l, m.Name, true))
	}
	return w.Flush()
}

func sessions(ctx context.Context, l *edge.Lab, router string) string {
	all, err := l.Sessions(ctx, router)
	if err != nil {
		return err.Error()
	}
	up, text := 0, ""
	for _, s := range all {
		if s.Up {
			up++
		} else {
			text += fmt.Sprintf(", %s %s", s.Peer, s.State)
		}
	}
	return fmt.Sprintf("%d of %d up%s", up, len(all), text)
}

// served says who serves a client now.
func served(ctx context.Context, l *edge.Lab, client string, v6 bool) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	a, err := l.Fetch(ctx, client, v6)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s by %s", a.Pop, a.Node)
}
