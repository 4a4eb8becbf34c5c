package xdp

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// object is bpf/dns.c compiled, by "make xdp-object".
//
//go:embed bpf/dns.o
var object []byte

// loaded is what is in the kernel.
type loaded struct {
	parts
	pages *ebpf.MapSpec // of an image
}

// parts are the program and its maps, by their names in the source.
type parts struct {
	Program    *ebpf.Program `ebpf:"answer"`
	Current    *ebpf.Map     `ebpf:"current"`
	Endpoints  *ebpf.Map     `ebpf:"endpoints"`
	Controls   *ebpf.Map     `ebpf:"controls"`
	Rates      *ebpf.Map     `ebpf:"rates"`
	Outcomes   *ebpf.Map     `ebpf:"outcomes"`
	Workspaces *ebpf.Map     `ebpf:"workspaces"`
}

// control is the program's struct control.
type control struct {
	Until    uint64
	Interval uint64
	MAC      [6]byte
	_        uint16
}

// controlOf returns the control for a rate limit, an interface's hardware address,
// and the time until which an image is trusted.
func controlOf(responses int, mac []byte, until uint64) control {
	c := control{Until: until}
	copy(c.MAC[:], mac)
	if responses > 0 {
		c.Interval = max(uint64(time.Second)/uint64(responses), 1)
	}
	return c
}

// endpoint is the program's struct endpoint. The port is in network byte order.
type endpoint struct {
	Address [16]byte
	Port    [2]byte
	_       uint16
}

// load hands the program to the kernel, which verifies it. It answers nothing
// before it has an image, a control and endpoints, and is attached.
func load() (*loaded, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	current := spec.Maps["current"]
	if current == nil || current.InnerMap == nil {
		return nil, errors.New("read the object: no map of images")
	}
	l := &loaded{pages: current.InnerMap}
	if err := spec.LoadAndAssign(&l.parts, nil); err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return l, nil
}

func (l *loaded) close() {
	l.Program.Close()
	for _, m := range []*ebpf.Map{l.Current, l.Endpoints, l.Controls, l.Rates, l.Outcomes, l.Workspaces} {
		m.Close()
	}
}

// install puts an image in force; nil takes the one in force away. When it
// returns, no packet sees the one before any more.
func (l *loaded) install(image []byte) error {
	if image == nil {
		if err := l.Current.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("take the image away: %w", err)
		}
		return nil
	}
	spec := l.pages.Copy()
	spec.MaxEntries = uint32(len(image) / pageSize)
	pages, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("make room for %d octets: %w", len(image), err)
	}
	defer pages.Close() // the outer map keeps it
	memory, err := pages.Memory()
	if err != nil {
		return fmt.Errorf("map the image: %w", err)
	}
	if _, err := memory.WriteAt(image, 0); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := l.Current.Put(uint32(0), pages); err != nil {
		return fmt.Errorf("put the image in force: %w", err)
	}
	return nil
}
