package lab

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"anyedge/configs"
)

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.ParseFS(templates, "templates/*"))

// secrets are what the lab's parts share; they live in its folder, readable by
// the owner only.
type secrets struct {
	roots       *x509.CertPool
	caFile      string
	bgpPassword string
	fleetKey    []byte // contents of fleet.key
}

// writeFiles fills the lab's folder: certificates, keys and the configs of all
// parts, as an operator would write them.
func (l *Lab) writeFiles(now time.Time) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if err := l.writeSecrets(now); err != nil {
		return err
	}
	return errors.Join(l.writePops(), l.writeDNS())
}

func (l *Lab) writeSecrets(now time.Time) error {
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	addrs := []net.IP{l.layout.anycast(0).Addr().AsSlice()}
	for i := range l.cfg.Pops {
		addrs = append(addrs, l.layout.pop(i).AsSlice())
	}
	cert, key, err := ca.issue(now, []string{l.host(), "anycast." + l.cfg.Zone}, addrs)
	if err != nil {
		return err
	}
	sealing := make([]byte, 32)
	password := make([]byte, 18)
	rand.Read(sealing)
	rand.Read(password)
	l.secrets = secrets{
		roots:       x509.NewCertPool(),
		caFile:      filepath.Join(l.dir, "ca.crt"),
		bgpPassword: base64.RawURLEncoding.EncodeToString(password),
		fleetKey:    []byte(base64.StdEncoding.EncodeToString(sealing) + "\n"),
	}
	l.secrets.roots.AddCert(ca.cert)
	return errors.Join(
		l.write("ca.crt", ca.pem),
		l.write("www.crt", cert),
		l.write("www.key", key),
		l.write("fleet.key", l.secrets.fleetKey),
		l.write("bgp.password", []byte(l.secrets.bgpPassword+"\n")),
	)
}

func (l *Lab) writePops() error {
	var errs []error
	for i, p := range l.cfg.Pops {
		errs = append(errs, l.render("pop.yaml", p.Name+".yaml", map[string]any{
			"Pop": p, "Node": nodeName(p), "Number": i + 1, "MED": 10 * (i + 1), "Pool": poolName(p),
			"Address": l.layout.pop(i), "PortTLS": portTLS, "PortClear": portClear, "PortAdmin": portAdmin,
			"Router": l.layout.router().Addr(), "RouterPort": portBGP,
			"Fleet": l.fleetURL, "Prefixes": l.cfg.Prefixes, "Dir": l.dir,
		}))
	}
	return errors.Join(errs...)
}

func (l *Lab) writeDNS() error {
	type pop struct {
		configs.LabPop
		Address netip.Addr
	}
	var pops []pop
	for i, p := range l.cfg.Pops {
		pops = append(pops, pop{p, l.layout.pop(i)})
	}
	var clients bytes.Buffer
	fmt.Fprintln(&clients, "# prefix,latitude,longitude")
	for _, c := range l.cfg.Clients {
		fmt.Fprintf(&clients, "%s,%g,%g\n", c.Prefix, c.Latitude, c.Longitude)
	}
	return errors.Join(
		l.write("clients.csv", clients.Bytes()),
		l.render("zone", l.cfg.Zone+".zone", map[string]any{
			"Zone": l.cfg.Zone, "DNSAddress": l.layout.dns().Addr(), "Anycast": l.layout.anycast(0).Addr(),
		}),
		l.render("gslb.yaml", "gslb.yaml", map[string]any{
			"Zone": l.cfg.Zone, "Fleet": l.fleetURL, "DNS": l.layout.dns(), "Admin": l.layout.dnsAdmin(), "Pops": pops,
		}),
	)
}

func (l *Lab) render(name, file string, data any) error {
	var buf bytes.Buffer
	if err := parsed.ExecuteTemplate(&buf, name, data); err != nil {
		return err
	}
	return l.write(file, buf.Bytes())
}

func (l *Lab) write(file string, data []byte) error {
	return os.WriteFile(filepath.Join(l.dir, file), data, 0o600)
}
