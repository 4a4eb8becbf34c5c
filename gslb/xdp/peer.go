package xdp

import (
	"fmt"
	"io"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// PassThrough attaches a program to an interface that lets every packet through,
// until it is closed. An end of a veth pair can send from a native program only if
// the other end has one too.
func PassThrough(itf *net.Interface) (io.Closer, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdictPass), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("xdp: load: %w", err)
	}
	defer program.Close() // the link keeps it
	l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: itf.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, fmt.Errorf("xdp: attach to %s: %w", itf.Name, err)
	}
	return l, nil
}
