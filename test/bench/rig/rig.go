package rig

import (
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/template"
)

// Kind names one of the proxies.
type Kind string

// The proxies. Caddy stands for what a good proxy on net/http costs.
const (
	Anyedge Kind = "anyedge"
	HAProxy Kind = "haproxy"
	Nginx   Kind = "nginx"
	Caddy   Kind = "caddy"
)

// Ports of every proxy, each on an address of its own. They lie below the range
// from which the kernel takes the ports of outgoing connections.
const (
	clearPort  = 18080
	tlsPort    = 18443
	adminPort  = 18600
	originPort = 18081
)

// hosts are the loopback addresses, one per proxy and one for the origin.
var hosts = map[Kind]netip.Addr{
	Anyedge: netip.AddrFrom4([4]byte{127, 0, 77, 1}),
	HAProxy: netip.AddrFrom4([4]byte{127, 0, 77, 2}),
	Nginx:   netip.AddrFrom4([4]byte{127, 0, 77, 3}),
	Caddy:   netip.AddrFrom4([4]byte{127, 0, 77, 4}),
	origin:  netip.AddrFrom4([4]byte{127, 0, 77, 5}),
}

// origin is the origin's kind: an nginx with static bodies.
const origin Kind = "origin"

// Bodies that the origin serves: the path and the size in bytes.
const (
	SmallPath, SmallSize = "/1k", 1 << 10
	LargePath, LargeSize = "/64k", 64 << 10
)

//go:embed templates
var templates embed.FS

// configFiles are the names of the templates and of what is rendered of them.
var configFiles = map[Kind]string{
	Anyedge: "anyedge.yaml",
	HAProxy: "haproxy.cfg",
	Nginx:   "nginx.conf",
	Caddy:   "Caddyfile",
	origin:  "origin.conf",
}

// Rig holds what the proxies share: a folder, a certificate and the binary
// under test.
type Rig struct {
	dir         string
	binary      string
	leaf        []byte // DER of the certificate
	descriptors uint64
}

// New makes a rig whose files stand under dir, an existing folder that the
// caller removes after the last process has been stopped. The binary is
// anyedge. It raises this process's descriptor limit as far as the kernel lets
// it, because the proxies inherit it.
func New(dir, binary string) (*Rig, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("the binary under test: %w", err)
	}
	r := &Rig{dir: dir, binary: binary}
	if r.descriptors, err = raiseDescriptors(); err != nil {
		return nil, err
	}
	if r.leaf, err = writeCertificate(dir); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	// Workers that gave up root read the bodies and write beside them.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	return r, writeBodies(filepath.Join(dir, string(origin), "bodies"))
}

// raiseDescriptors sets the soft limit to the hard one. It is set explicitly,
// and not left to the Go runtime, which would give children the old limit.
func raiseDescriptors() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the descriptor limit: %w", err)
	}
	return l.Cur, nil
}

func writeBodies(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for path, size := range map[string]int{SmallPath: SmallSize, LargePath: LargeSize} {
		if err := os.WriteFile(filepath.Join(dir, path), body(size), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// body is the text of a static body.
func body(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return b
}

// Connections is how many client connections every proxy is set up for: under
// half the descriptor limit, as each may need one more to the origin.
func (r *Rig) Connections() int { return int(min(r.descriptors*9/20, 100_000)) }

// settings are what a template is filled with.
type settings struct {
	Dir                       string // shared files
	Clear, TLS, Admin, Origin netip.AddrPort
	Connections               int
	Descriptors               uint64
}

// render writes the config of a kind and returns its path.
func (r *Rig) render(kind Kind, s settings) (string, error) {
	name := configFiles[kind]
	t, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(r.dir, string(kind), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	if err := t.Execute(f, s); err != nil {
		f.Close()
		return "", err
	}
	return path, f.Close()
}

// command is how a kind runs in the foreground with a config.
func (r *Rig) command(kind Kind, config string) (*exec.Cmd, error) {
	tool := string(kind)
	var args []string
	switch kind {
	case Anyedge:
		tool, args = r.binary, []string{"pop", "--config", config}
	case HAProxy:
		args = []string{"-db", "-f", config}
	case Nginx, origin:
		tool, args = "nginx", []string{"-c", config, "-e", "stderr"}
	case Caddy:
		args = []string{"run", "--config", config, "--adapter", "caddyfile"}
	default:
		return nil, fmt.Errorf("no proxy is called %q", kind)
	}
	path, err := Find(tool)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	home := filepath.Join(r.dir, string(kind))
	// Two threads each, however many cores there are.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	return cmd, nil
}

// Find looks for a tool in PATH and where Debian puts daemons.
func Find(tool string) (string, error) {
	path, err := exec.LookPath(tool)
	if err == nil {
		return path, nil
	}
	if sbin, e := exec.LookPath("/usr/sbin/" + tool); e == nil {
		return sbin, nil
	}
	return "", err
}
