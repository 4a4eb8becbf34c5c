package cli

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"anyedge/bgp/bfd"
)

// runBFD is the process that BFD runs in.
func runBFD(c *invocation) error {
	if err := c.parse(0); err != nil {
		return err
	}
	const descriptor = 3 // the agent's end of the control socket
	if kind, err := unix.GetsockoptInt(descriptor, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return errors.New("started without an agent; run \"anyedge pop\"")
	}
	return bfd.Serve(os.NewFile(descriptor, "control"))
}
