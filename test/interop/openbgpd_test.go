package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// openbgpd is OpenBGPD in its portable edition.
type openbgpd struct{ *site }

var openbgpdConfig = template.Must(template.New("openbgpd").Parse(`
AS {{.ASN}}
router-id {{.ID}}
fib-update no
holdtime {{.Hold}}
socket "{{.Dir}}/control"
{{- range .Links}}
neighbor {{.Ours}} {
	descr "{{.Name}}"
	remote-as {{$.EdgeASN}}
	local-address {{.Theirs}}
	passive
	announce IPv4 unicast
	announce IPv6 unicast
	{{- if .Password}}
	tcp md5sig password "{{.Password}}"
	{{- end}}
	{{- if .TTLSecurity}}
	ttl-security yes
	{{- end}}
}
{{- end}}
allow from any
match from any community GRACEFUL_SHUTDOWN set { localpref 0 }
`))

func (o *openbgpd) start(s *site) error {
	o.site = s
	// The daemon changes its root to there; Debian leaves the making to systemd.
	if err := os.MkdirAll("/run/openbgpd", 0o755); err != nil {
		return err
	}
	if err := s.write("bgpd.conf", openbgpdConfig, 0o600); err != nil {
		return err
	}
	return s.daemon("/usr/sbin/bgpd", "-d", "-f", s.file("bgpd.conf"))
}

// octal is how bgpctl writes what is not ASCII, also where JSON has no such form.
var octal = regexp.MustCompile(`\\[0-3][0-7]{2}`)

// show asks a question whose answer is JSON.
func (o *openbgpd) show(answer any, question ...string) error {
	out, err := o.ask(append([]string{"/usr/sbin/bgpctl", "-s", o.file("control"), "-j", "show"}, question...)...)
	if err != nil {
		return err
	}
	out = octal.ReplaceAllStringFunc(out, func(s string) string {
		n, _ := strconv.ParseUint(s[1:], 8, 8)
		return string([]byte{byte(n)})
	})
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("%v: %w in %s", question, err, out)
	}
	return nil
}

type openbgpdNeighbor struct {
	RemoteAddr string `json:"remote_addr"`
	State      string
	Reason     string `json:"last_shutdown_reason"`
	Error      string `json:"last_error_received"`
}

func (o *openbgpd) neighbor(l *link) (openbgpdNeighbor, error) {
	var all struct{ Neighbors []openbgpdNeighbor }
	if err := o.show(&all, "neighbor", l.ours.String()); err != nil {
		return openbgpdNeighbor{}, err
	}
	if len(all.Neighbors) != 1 {
		return openbgpdNeighbor{}, fmt.Errorf("%v: %+v", l.ours, all)
	}
	return all.Neighbors[0], nil
}

func (o *openbgpd) established(l *link) (bool, error) {
	n, err := o.neighbor(l)
	return n.State == "Established", err
}

func (o *openbgpd) lastError(l *link) (string, error) {
	n, err := o.neighbor(l)
	return n.Error + ": " + n.Reason, err
}

func (o *openbgpd) paths(prefix netip.Prefix) ([]path, error) {
	var answer struct {
		RIB []struct {
			Prefix      netip.Prefix
			ASPath      string
			ExitNextHop netip.Addr `json:"exit_nexthop"`
			Neighbor    struct {
				RemoteAddr netip.Addr `json:"remote_addr"`
			}
			Best             bool
			Metric           uint32
			LocalPref        uint32
			Communities      []string
			LargeCommunities []string `json:"large_communities"`
		}
	}
	if err := o.show(&answer, "rib", "detail", prefix.String()); err != nil {
		return nil, err
	}
	var all []path
	for _, r := range answer.RIB {
		if r.Prefix != prefix {
			continue
		}
		p := path{from: r.Neighbor.RemoteAddr, nextHop: r.ExitNextHop, med: r.Metric, localPref: r.LocalPref, best: r.Best}
		var err error
		if p.asPath, err = numbers(r.ASPath); err != nil {
			return nil, err
		}
		for _, c := range append(r.Communities, r.LargeCommunities...) {
			p.community = append(p.community, strings.ReplaceAll(c, "GRACEFUL_SHUTDOWN", "65535:0"))
		}
		all = append(all, p)
	}
	return all, nil
}

func (o *openbgpd) bfdUp(*link) (bool, error) { return false, nil }

func (o *openbgpd) lacks(column string) string {
	switch column {
	case columnMD5:
		return "Debian's OpenBGPD 7.7 takes the setting and never gives it to Linux; the Speaker has no session then"
	case columnBFD:
		return "OpenBGPD speaks no BFD"
	case columnNextHop:
		return "OpenBGPD 7.7 has no extended next hop encoding; the Speaker withholds the route and says so"
	}
	return ""
}
