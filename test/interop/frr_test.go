package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"text/template"
)

// frr is FRR's zebra, bgpd and bfdd.
type frr struct{ *site }

var frrConfig = template.Must(template.New("frr").Parse(`
frr defaults traditional
hostname frr
bfd
 profile fast
  transmit-interval {{.Interval}}
  receive-interval {{.Interval}}
  detect-multiplier {{.Multiplier}}
 exit
exit
router bgp {{.ASN}}
 bgp router-id {{.ID}}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp {{.Keepalive}} {{.Hold}}
{{- range .Links}}
 neighbor {{.Ours}} remote-as {{$.EdgeASN}}
 neighbor {{.Ours}} description {{.Name}}
 neighbor {{.Ours}} update-source {{.Theirs}}
 neighbor {{.Ours}} passive
{{- if .Six}}
 neighbor {{.Ours}} capability extended-nexthop
{{- end}}
{{- if .Password}}
 neighbor {{.Ours}} password {{.Password}}
{{- end}}
{{- if .TTLSecurity}}
 neighbor {{.Ours}} ttl-security hops 1
{{- end}}
{{- if .BFD}}
 neighbor {{.Ours}} bfd profile fast
{{- end}}
{{- end}}
{{- range $family := .Families}}
 address-family {{$family}} unicast
{{- range $.Links}}
  neighbor {{.Ours}} activate
{{- end}}
 exit-address-family
{{- end}}
`))

// settings are what every config is made from.
type settings struct {
	ASN, EdgeASN    uint32
	ID              netip.Addr
	Keepalive, Hold int // seconds
	Interval        int64
	Multiplier      int
	Families        []string
	Dir             string
	Links           []linkSettings
}

type linkSettings struct {
	Name         string
	Ours, Theirs netip.Addr // the edge's and the peer's
	Password     string
	Six          bool
	TTLSecurity  bool
	BFD          bool
}

func (s *site) settings() settings {
	c := settings{
		ASN: s.asn, EdgeASN: edgeASN, ID: s.routerID(), Keepalive: int(hold.Seconds()) / 3, Hold: int(hold.Seconds()),
		Interval: bfdInterval.Milliseconds(), Multiplier: bfdMultiplier, Families: []string{"ipv4", "ipv6"}, Dir: s.dir,
	}
	for _, l := range s.links {
		c.Links = append(c.Links, linkSettings{l.name, l.ours, l.theirs, l.password, over6(l.name), l.ttlSecurity, l.bfd})
	}
	return c
}

// write makes a file from a template.
func (s *site) write(name string, t *template.Template, mode os.FileMode) error {
	var text strings.Builder
	if err := t.Execute(&text, s.settings()); err != nil {
		return err
	}
	return os.WriteFile(s.file(name), []byte(text.String()), mode)
}

func (f *frr) start(s *site) error {
	f.site = s
	owner, err := user.Lookup("frr")
	if err != nil {
		return fmt.Errorf("install Debian's frr: %w", err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	if err := s.write("frr.conf", frrConfig, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(s.file("vtysh.conf"), nil, 0o644); err != nil {
		return err
	}
	if err := os.Chown(s.dir, uid, gid); err != nil {
		return err
	}
	for _, daemon := range []string{"zebra", "bfdd", "bgpd"} {
		argv := []string{"/usr/lib/frr/" + daemon, "-f", "/dev/null", "-i", s.file(daemon + ".pid"), "-z", s.file("zserv"),
			"--vty_socket", s.dir, "-u", "frr", "-g", "frr", "--log", "stdout"}
		if daemon != "zebra" {
			argv = append(argv, "--bfdctl", s.file("bfdctl"))
		}
		if daemon == "bgpd" {
			argv = argv[:len(argv)-2]
		}
		if err := s.daemon(argv...); err != nil {
			return err
		}
		socket := s.file(daemon + ".vty")
		if err := await(socket, func() error { _, err := os.Stat(socket); return err }); err != nil {
			return err
		}
	}
	_, err = s.ask("vtysh", "--vty_socket", s.dir, "--config_dir", s.dir, "-f", s.file("frr.conf"))
	return err
}

// show asks a question whose answer is JSON.
func (f *frr) show(answer any, question string) error {
	out, err := f.ask("vtysh", "--vty_socket", f.dir, "--config_dir", f.dir, "-c", question+" json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("%s: %w in %s", question, err, out)
	}
	return nil
}

type frrNeighbor struct {
	State        string `json:"bgpState"`
	Text         string `json:"lastShutdownDescription"`
	Notification string `json:"lastNotificationReason"`
}

func (f *frr) neighbor(l *link) (frrNeighbor, error) {
	var all map[string]frrNeighbor
	err := f.show(&all, fmt.Sprintf("show bgp neighbors %v", l.ours))
	return all[l.ours.String()], err
}

func (f *frr) established(l *link) (bool, error) {
	n, err := f.neighbor(l)
	return n.State == "Established", err
}

func (f *frr) lastError(l *link) (string, error) {
	n, err := f.neighbor(l)
	if err != nil {
		return "", err
	}
	// FRR shows what is not ASCII as it would write it in C.
	text, err := strconv.Unquote(`"` + n.Text + `"`)
	return n.Notification + ": " + text, err
}

func (f *frr) paths(prefix netip.Prefix) ([]path, error) {
	type list struct {
		Text string `json:"string"`
	}
	var rib struct {
		Paths []struct {
			ASPath struct {
				Segments []struct{ List []uint32 }
			}
			Metric, LocPrf            uint32
			Community, LargeCommunity list
			BestPath                  struct{ Overall bool }
			NextHops                  []struct {
				IP    netip.Addr
				Scope string
			}
			Peer struct{ PeerID netip.Addr }
		}
	}
	family := "ipv4"
	if prefix.Addr().Is6() {
		family = "ipv6"
	}
	if err := f.show(&rib, fmt.Sprintf("show bgp %s unicast %v", family, prefix)); err != nil {
		return nil, err
	}
	var all []path
	for _, p := range rib.Paths {
		one := path{from: p.Peer.PeerID, med: p.Metric, localPref: p.LocPrf, best: p.BestPath.Overall}
		for _, s := range p.ASPath.Segments {
			one.asPath = append(one.asPath, s.List...)
		}
		for _, h := range p.NextHops {
			if h.Scope != "link-local" {
				one.nextHop = h.IP
			}
		}
		text := strings.ReplaceAll(p.Community.Text, "graceful-shutdown", "65535:0")
		one.community = strings.Fields(text + " " + p.LargeCommunity.Text)
		all = append(all, one)
	}
	return all, nil
}

func (f *frr) bfdUp(l *link) (bool, error) {
	var peers []struct{ Peer, Status string }
	err := f.show(&peers, "show bfd peers")
	for _, p := range peers {
		if p.Peer == l.ours.String() && p.Status == "up" {
			return true, nil
		}
	}
	return false, err
}

func (f *frr) lacks(string) string { return "" }
