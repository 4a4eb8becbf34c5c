package interop

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// bird is BIRD 2.
type bird struct{ *site }

var birdConfig = template.Must(template.New("bird").Parse(`
log stderr all;
router id {{.ID}};
protocol device {}
protocol direct { ipv4; ipv6; }
protocol bfd {
	interface "edge" { interval {{.Interval}} ms; multiplier {{.Multiplier}}; };
}
# What RFC 8326 asks of whoever receives the community; BIRD leaves it to a filter.
filter from_edge {
	if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
	accept;
}
{{- range .Links}}
protocol bgp {{.Name}} {
	local {{.Theirs}} as {{$.ASN}};
	neighbor {{.Ours}} as {{$.EdgeASN}};
	passive yes;
	strict bind yes;
	hold time {{$.Hold}};
	error wait time 1, 2;
	error forget time 1;
	{{- if .Password}}
	password "{{.Password}}";
	{{- end}}
	{{- if .TTLSecurity}}
	ttl security yes;
	{{- end}}
	{{- if .BFD}}
	bfd yes;
	{{- end}}
	ipv4 { import filter from_edge; export none; {{if .Six}}extended next hop yes;{{end}} };
	ipv6 { import filter from_edge; export none; };
}
{{- end}}
`))

func (b *bird) start(s *site) error {
	b.site = s
	if err := s.write("bird.conf", birdConfig, 0o644); err != nil {
		return err
	}
	return s.daemon("/usr/sbin/bird", "-f", "-c", s.file("bird.conf"), "-s", s.file("ctl"), "-P", s.file("pid"))
}

func (b *bird) show(question ...string) (string, error) {
	return b.ask(append([]string{"/usr/sbin/birdc", "-r", "-s", b.file("ctl"), "show"}, question...)...)
}

func (b *bird) established(l *link) (bool, error) {
	out, err := b.show("protocols", "all", l.name)
	return regexp.MustCompile(`BGP state:\s+Established`).MatchString(out), err
}

func (b *bird) lastError(l *link) (string, error) {
	// BIRD shows the error of the last session until the next one is open, its
	// log keeps the text.
	for line := range strings.Lines(b.tail("output")) {
		if strings.Contains(line, l.name+": Received:") {
			return line, nil
		}
	}
	return b.show("protocols", "all", l.name)
}

// birdField is a line of "show route all", "BGP.med: 10".
var birdField = regexp.MustCompile(`^\s+BGP\.(\w+): (.*?)\s*$`)

// birdHead is the line with which a path begins. The prefix is there once.
var birdHead = regexp.MustCompile(`^(?:\S+)?\s+\w+ \[(\w+) .*?\](\s+\*)? \(`)

func (b *bird) paths(prefix netip.Prefix) ([]path, error) {
	out, err := b.show("route", "all", prefix.String())
	if err != nil && strings.Contains(err.Error(), "Network not found") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []path
	for line := range strings.Lines(out) {
		if m := birdHead.FindStringSubmatch(line); m != nil {
			all = append(all, path{from: b.link(m[1]).ours, best: m[2] != ""})
			continue
		}
		m := birdField.FindStringSubmatch(line)
		if m == nil || len(all) == 0 {
			continue
		}
		p := &all[len(all)-1]
		switch number, _ := strconv.ParseUint(m[2], 10, 32); m[1] {
		case "as_path":
			if p.asPath, err = numbers(m[2]); err != nil {
				return nil, err
			}
		case "next_hop":
			first, _, _ := strings.Cut(m[2], " ") // then a link-local one
			if p.nextHop, err = netip.ParseAddr(first); err != nil {
				return nil, err
			}
		case "med":
			p.med = uint32(number)
		case "local_pref":
			p.localPref = uint32(number)
		case "community", "large_community":
			text := strings.NewReplacer("(", "", ")", "", ", ", ":", ",", ":").Replace(m[2])
			p.community = append(p.community, strings.Fields(text)...)
		}
	}
	return all, nil
}

// numbers reads AS numbers with spaces between them.
func numbers(text string) ([]uint32, error) {
	var all []uint32
	for _, word := range strings.Fields(text) {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("AS path %q: %w", text, err)
		}
		all = append(all, uint32(n))
	}
	return all, nil
}

func (b *bird) bfdUp(l *link) (bool, error) {
	out, err := b.show("bfd", "sessions")
	return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(l.ours.String()) + `\s+\S+\s+Up\s`).MatchString(out), err
}

func (b *bird) lacks(string) string { return "" }
