package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/gslb"
	"anyedge/gslb/dnssec"
	"anyedge/internal/ops"
)

// DNSSECRequest is the body of POST /v1/dnssec.
type DNSSECRequest struct {
	Zone string `json:"zone"`
	Act  string `json:"act"`            // roll, seen, unsign or sign
	Role string `json:"role,omitempty"` // roll: the key's, csk, ksk or zsk
	Tag  uint16 `json:"tag,omitempty"`  // seen: of the key whose DS record the parent has
	By   string `json:"by"`
}

// The acts of a DNSSECRequest.
const (
	actRoll   = "roll"
	actSeen   = "seen"
	actUnsign = "unsign"
	actSign   = "sign"
)

// dnssecEndpoints is the part of a DNS node's admin API that is about keys.
func dnssecEndpoints(n *gslb.Node) []ops.Endpoint {
	return []ops.Endpoint{
		{Method: http.MethodGet, Path: "/v1/dnssec", Doc: "the keys of signed zones, what happens next, and the DS records for the parents",
			Handle: func(context.Context, ops.Request) (any, error) {
				return map[string]any{"zones": n.Keys()}, nil
			}},
		{Method: http.MethodPost, Path: "/v1/dnssec", Doc: "roll a key over, confirm the parent's DS record, make a zone unsigned or signed again",
			Handle: func(ctx context.Context, r ops.Request) (any, error) {
				return nil, changeKeys(ctx, n, r)
			}},
	}
}

// changeKeys carries out a POST /v1/dnssec.
func changeKeys(ctx context.Context, n *gslb.Node, r ops.Request) error {
	var req DNSSECRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	who := actor(r, req.By)
	var err error
	switch role := dnssec.Role(req.Role); {
	case req.By == "":
		return ops.BadRequest("by: say who it is")
	case req.Act == actRoll && !slices.Contains([]dnssec.Role{dnssec.CSK, dnssec.KSK, dnssec.ZSK}, role):
		return ops.BadRequest("role: %.20q is not csk, ksk or zsk", req.Role)
	case req.Act == actRoll:
		err = n.RollKeys(ctx, who, req.Zone, role)
	case req.Act == actSeen:
		err = n.ConfirmDS(ctx, who, req.Zone, req.Tag)
	case req.Act == actUnsign:
		err = n.Unsign(ctx, who, req.Zone)
	case req.Act == actSign:
		err = n.StaySigned(ctx, who, req.Zone)
	default:
		return ops.BadRequest("act: %.20q is not roll, seen, unsign or sign", req.Act)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gslb.ErrNotSigned):
		return ops.NotFound("%w", err)
	case errors.Is(err, dnssec.ErrBusy):
		return ops.Conflict("%w; \"anyedge dnssec status\" shows it", err)
	case errors.Is(err, dnssec.ErrNoKey):
		return ops.Conflict("%w", err)
	}
	return ops.Unavailable("the keys were not changed: %w", err)
}

// runDNSSEC shows the keys of signed zones, or changes them by hand.
func runDNSSEC(c *invocation) error {
	address := c.gslbFlag()
	asJSON := c.flags.Bool("json", false, "status: print the API's JSON")
	role := c.flags.String("role", string(dnssec.CSK), "roll: of the `key`, csk (both), ksk or zsk")
	tag := c.flags.Uint("tag", 0, "seen: of the key whose DS record, and no other, the parent has")
	words, err := c.parseWords()
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return usagef("say what to do: status, ds, roll, seen, unsign or sign")
	}
	act, zones := words[0], words[1:]
	switch act {
	case "status", "ds":
		if len(zones) > 1 {
			return usagef("%s takes one zone, or none for all", act)
		}
		return c.printKeys(*address, act, strings.Join(zones, ""), *asJSON)
	case actRoll, actSeen, actUnsign, actSign:
	default:
		return usagef("%q is not status, ds, roll, seen, unsign or sign", act)
	}
	req := DNSSECRequest{Act: act}
	if len(zones) != 1 {
		return usagef("%s takes one zone", act)
	}
	req.Zone = zones[0]
	switch act {
	case actRoll:
		req.Role = *role
	case actSeen:
		if *tag == 0 {
			return usagef("--tag is required: \"anyedge dnssec ds\" shows the tags")
		}
		if *tag > math.MaxUint16 {
			return usagef("--tag: %d is not the tag of a key, which are from 0 to 65535", *tag)
		}
		req.Tag = uint16(*tag)
	}
	req.By = operator()
	return ops.Client{Address: *address}.Post(context.Background(), "/v1/dnssec", req, nil)
}

// printKeys prints the keys of one zone, or of all.
func (c *invocation) printKeys(address netip.AddrPort, act, zone string, asJSON bool) error {
	var answer struct{ Zones []gslb.ZoneKeysStatus }
	if printed, err := c.fetch(address, "/v1/dnssec", asJSON, &answer); printed || err != nil {
		return err
	}
	if zone != "" {
		zone = strings.ToLower(strings.TrimSuffix(zone, "."))
		answer.Zones = slices.DeleteFunc(answer.Zones, func(z gslb.ZoneKeysStatus) bool { return z.Zone != zone })
		if len(answer.Zones) == 0 {
			return fmt.Errorf("zone %s is not signed there", zone)
		}
	}
	for _, z := range answer.Zones {
		if act == "ds" {
			printDS(c.out, z)
		} else {
			printZoneKeys(c.out, z)
		}
	}
	return nil
}

// printDS prints the DS records for a zone's parent as lines of a zone file.
func printDS(out io.Writer, z gslb.ZoneKeysStatus) {
	for _, ds := range z.DS {
		fmt.Fprintf(out, "%s. IN DS %s\n", z.Zone, ds)
	}
	if len(z.DS) > 0 {
		return
	}
	if i := slices.IndexFunc(z.Next, func(e dnssec.Event) bool { return e.Kind == dnssec.Offering }); i >= 0 {
		fmt.Fprintf(out, "; %s: the parent must have no DS record before %s\n", z.Zone, z.Next[i].At.UTC().Format(time.DateTime))
		return
	}
	fmt.Fprintf(out, "; %s: the parent must have no DS record\n", z.Zone)
}

var algorithmNames = map[uint8]string{dnssec.ECDSAP256SHA256: "ecdsa-p256", dnssec.Ed25519: "ed25519"}

// printZoneKeys prints how a zone's keys are, for people.
func printZoneKeys(out io.Writer, z gslb.ZoneKeysStatus) {
	signed := "signed"
	if !z.Signed {
		signed = "not signed"
	}
	fmt.Fprintf(out, "%s: %s, generation %d\n", z.Zone, signed, z.Generation)
	for _, k := range z.Keys {
		fmt.Fprintf(out, "  %s %-5d  %-10s  since %s  %s\n", k.Role, k.Tag, algorithmNames[k.Algorithm], k.Created.UTC().Format(time.DateOnly), k.State)
	}
	for _, e := range z.Next {
		fmt.Fprintf(out, "  %s  %s\n", e.At.UTC().Format(time.DateTime), e.What)
	}
	if z.Waiting != "" {
		fmt.Fprintf(out, "  waits %s\n", z.Waiting)
	}
	if z.Error != "" {
		fmt.Fprintf(out, "  error: %s\n", line(z.Error))
	}
	if z.ParentAt.IsZero() {
		return
	}
	at := z.ParentAt.UTC().Format(time.DateTime)
	for _, answer := range z.Parent {
		if len(answer) == 0 {
			answer = []string{"no DS record"}
		}
		fmt.Fprintf(out, "  parent at %s: %s\n", at, strings.Join(answer, ", "))
	}
	if z.ParentError != "" {
		fmt.Fprintf(out, "  parent at %s: %s\n", at, strings.ReplaceAll(z.ParentError, "\n", "; "))
	}
}
