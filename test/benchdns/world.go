package main

import (
	"bytes"
	"embed"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"anyedge/test/lab/dns"
)

// The shape of the zone and of the load.
const (
	zone     = "bench.example"
	hosts    = 1000 // names with addresses, some with texts
	steered  = 100  // names that are steered, "s0" and so on
	networks = 4096 // of the map of clients, each a /16 from 20.0.0.0 on
	queries  = 20000
)

// pops are where clients are sent: their addresses in answers, and where they
// are.
var pops = []struct {
	Name      string
	Latitude  int
	Longitude int
	Address   netip.Addr
}{
	{"fra", 50, 8, netip.AddrFrom4([4]byte{192, 0, 2, 1})},
	{"iad", 39, -77, netip.AddrFrom4([4]byte{192, 0, 2, 2})},
	{"sin", 1, 103, netip.AddrFrom4([4]byte{192, 0, 2, 3})},
}

//go:embed templates
var templates embed.FS

// world is the files that the servers and the load read.
type world struct {
	dir, binary string
	missing     float64 // share of the queries whose name does not exist
}

// newWorld writes everything into dir.
func newWorld(dir, binary string) (*world, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, binary: binary}
	plain, static, dynamic, clients := records(), new(strings.Builder), new(strings.Builder), new(strings.Builder)
	for i := range steered {
		fmt.Fprintf(static, "s%d 20 IN A %s\n", i, pops[0].Address)
		fmt.Fprintf(dynamic, "s%d 20 DYNA geoip!www\n", i)
	}
	type network struct{ Prefix, Pop string }
	var nets []network
	for i := range networks {
		pop := pops[i%len(pops)]
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>8), byte(i), 0, 0}), 16)
		fmt.Fprintf(clients, "%v,%d,%d\n", prefix, pop.Latitude, pop.Longitude)
		nets = append(nets, network{prefix.String(), pop.Name})
	}
	files := map[string]string{
		"plain.zone":          plain, // where the server steers the rest
		"static.zone":         plain + static.String(),
		"gdnsd/zones/" + zone: plain + dynamic.String(),
		"clients.csv":         clients.String(),
	}
	for name, config := range map[string]string{anyedge: "gslb.yaml", "gdnsd": "gdnsd/config", "knot": "knot.conf", "nsd": "nsd.conf"} {
		var b bytes.Buffer
		t, err := template.ParseFS(templates, "templates/"+name)
		if err != nil {
			return nil, err
		}
		var address netip.Addr
		for _, s := range servers {
			if s.name == name {
				address = s.address
			}
		}
		if err := t.Execute(&b, map[string]any{
			"Dir": dir, "Address": address, "Port": port, "AdminPort": adminPort, "Zone": zone,
			"Pops": pops, "Networks": nets, "Steered": make([]struct{}, steered),
		}); err != nil {
			return nil, err
		}
		files[config] = b.String()
	}
	files[driver+"/gslb.yaml"] = strings.ReplaceAll(files["gslb.yaml"], servers[0].address.String(), dns.Server4.String()) +
		"xdp: {interface: " + dns.Interface + "}\n"
	files[driver+"/plain.zone"] = files["plain.zone"]
	// The resolver is on the map, as those of the Internet are: lots go to the sockets.
	files[driver+"/clients.csv"] = files["clients.csv"] + fmt.Sprintf("%v/32,%d,%d\n", dns.Client4, pops[0].Latitude, pops[0].Longitude)
	files["queries"] = string(w.mix())
	for _, folder := range []string{"gdnsd/zones", "gdnsd/geoip", "gdnsd/run", "gdnsd/state", "knot", driver} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return nil, err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// records is the part of the zone that nobody steers.
func records() string {
	var b strings.Builder
	b.WriteString("$TTL 300\n" +
		"@ IN SOA ns1.bench.example. hostmaster.bench.example. 1 3600 900 604800 60\n" +
		"@ IN NS ns1.bench.example.\n@ IN NS ns2.bench.example.\n@ IN MX 10 mail.bench.example.\n" +
		"ns1 IN A 192.0.2.53\nns2 IN A 192.0.2.54\nmail IN A 192.0.2.25\n")
	for i := range hosts {
		fmt.Fprintf(&b, "h%d IN A 192.0.2.%d\nh%d IN AAAA 2001:db8::%x\n", i, i%250+1, i, i)
		if i%4 == 0 {
			fmt.Fprintf(&b, "h%d IN TXT \"host %d\"\n", i, i)
		}
	}
	return b.String()
}

// Types of queries.
const (
	typeA, typeNS, typeSOA, typeMX, typeTXT, typeAAAA = 1, 2, 6, 15, 16, 28
)

// mix returns the queries as dnsperf reads them: each with its length before it.
func (w *world) mix() []byte {
	random := rand.New(rand.NewPCG(1, 2)) // the same load in every run
	pick := func(types ...uint16) uint16 { return types[random.IntN(len(types))] }
	var all []byte
	missing := 0
	for i := range queries {
		var name string
		var qtype uint16
		switch r := random.IntN(100); {
		case r < 50:
			name, qtype = fmt.Sprintf("s%d.%s", random.IntN(steered), zone), typeA
		case r < 85:
			name, qtype = fmt.Sprintf("h%d.%s", random.IntN(hosts), zone), pick(typeA, typeA, typeAAAA, typeAAAA, typeTXT)
		case r < 90:
			name, qtype = zone, pick(typeNS, typeSOA, typeMX)
		default:
			name, qtype = fmt.Sprintf("x%d.%s", random.IntN(1_000_000), zone), typeA
			missing++
		}
		var subnet []byte
		if i%2 == 1 {
			subnet = []byte{byte(20 + random.IntN(networks>>8)), byte(random.IntN(256)), byte(random.IntN(256))}
		}
		query := question(random, name, qtype, subnet)
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(query))), query...)
	}
	w.missing = float64(missing) / queries
	return all
}

// question is a query with EDNS, its name in mixed case, for a client in a /24
// if there is one.
func question(random *rand.Rand, name string, qtype uint16, subnet []byte) []byte {
	msg := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	for label := range strings.SplitSeq(name, ".") {
		msg = append(msg, byte(len(label)))
		for _, c := range []byte(label) {
			if c >= 'a' && random.IntN(2) == 0 {
				c -= 'a' - 'A'
			}
			msg = append(msg, c)
		}
	}
	msg = append(msg, 0, byte(qtype>>8), byte(qtype), 0, 1)
	var option []byte
	if subnet != nil {
		option = append([]byte{0, 8, 0, 7, 0, 1, 24, 0}, subnet...) // RFC 7871 section 6
	}
	msg = append(msg, 0, 0, 41, 1232>>8, 1232&0xff, 0, 0, 0, 0, 0, byte(len(option)))
	return append(msg, option...)
}
