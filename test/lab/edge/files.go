package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"anyedge/test/lab/topology"
)

// certificateLife is how long a lab can be up.
const certificateLife = 7 * 24 * time.Hour

// writeFiles fills the run folder. Every machine has a folder, which in the case
// of a router belongs to FRR's user, because the daemons make sockets there.
func (l *Lab) writeFiles(context.Context) error {
	files, err := l.Plan.Files()
	if err != nil {
		return err
	}
	options, err := json.MarshalIndent(l.options, "", "  ")
	if err != nil {
		return err
	}
	files[optionsFile] = options
	authority, err := l.addSecrets(files)
	if err != nil {
		return err
	}
	if l.client, err = newClient(l, authority); err != nil {
		return err
	}
	if err := os.MkdirAll(l.path(topology.Shared), 0o755); err != nil {
		return err
	}
	for _, m := range l.Plan.Machines {
		if err := os.Mkdir(l.path(m.Name), 0o755); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := os.WriteFile(l.path(name), data, 0o600); err != nil {
			return err
		}
	}
	return l.giveToFRR()
}

// giveToFRR gives the routers' folders to the user that FRR runs as.
func (l *Lab) giveToFRR() error {
	u, err := user.Lookup(frrUser)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	for _, m := range l.Plan.Machines {
		if m.Daemon != topology.FRR {
			continue
		}
		err := filepath.WalkDir(l.path(m.Name), func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, uid, gid))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkConfigs has the product check what it will be given.
func (l *Lab) checkConfigs(ctx context.Context) error {
	return l.each(l.Plan.Machines, func(m *topology.Machine) error {
		var file string
		switch m.Role {
		case topology.Node:
			file = "pop.yaml"
		case topology.DNSHost:
			file = "gslb.yaml"
		default:
			return nil
		}
		out, err := exec.CommandContext(ctx, l.options.Binary, "check", "--config", l.path(m.Name, file)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// addSecrets makes the certificates and the key that seals the fleet's secrets.
// It returns the certificate of the authority in PEM.
func (l *Lab) addSecrets(files map[string][]byte) (authority []byte, err error) {
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab authority"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: l.Plan.Host()},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{l.Plan.Host(), "anycast." + l.Plan.Zone},
	}
	for _, v6 := range []bool{false, true} {
		leaf.IPAddresses = append(leaf.IPAddresses, net.IP(l.Plan.ServiceAddress(v6).AsSlice()))
		for _, n := range l.Plan.Of(topology.Node, "") {
			leaf.IPAddresses = append(leaf.IPAddresses, net.IP(n.Address(v6).AsSlice()))
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return nil, err
	}
	sealing := make([]byte, 32)
	rand.Read(sealing)
	put := func(name string, data []byte) { files[filepath.Join(topology.Shared, name)] = data }
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	authority = encode("CERTIFICATE", rootDER)
	put(topology.CAFile, authority)
	put(topology.CertFile, encode("CERTIFICATE", leafDER))
	put(topology.KeyFile, encode("PRIVATE KEY", keyDER))
	put(topology.SealingFile, []byte(base64.StdEncoding.EncodeToString(sealing)+"\n"))
	return authority, nil
}
