package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"anyedge/configs"
	"anyedge/internal/daemon"
	"anyedge/internal/lab"
)

// runLab runs a whole edge on this machine.
func runLab(c *invocation) error {
	check := c.flags.Bool("check", false, "play the story: exit 0 if every step holds, else 1")
	file := c.flags.String("config", "", "the lab's config `file`; default: three PoPs")
	dir := c.flags.String("dir", "", "`folder` for configs, keys and logs; default .lab, or a temporary one with --check")
	network := c.flags.String("network", "", "a loopback /16 such as 127.78.0.0/16; default 127.77.0.0/16, or a free one with --check")
	consul := c.flags.String("consul", "", "a Consul `binary` to keep the fleet's state in; default: memory")
	verbose := c.flags.Bool("v", false, "show what the lab's own parts log")
	if err := c.parse(0); err != nil {
		return err
	}
	cfg := configs.DefaultLab()
	if *file != "" {
		var err error
		if cfg, err = configs.LoadLab(*file); err != nil {
			return err
		}
	}
	var err error
	switch {
	case *network != "":
		if cfg.Network, err = netip.ParsePrefix(*network); err != nil || cfg.Network.Bits() != 16 || !cfg.Network.Addr().IsLoopback() || !cfg.Network.Addr().Is4() {
			return usagef("--network %s is not a /16 inside 127.0.0.0/8", *network)
		}
	case *check && *file == "":
		if cfg.Network, err = lab.FreeNetwork(); err != nil {
			return err
		}
	}
	temporary := *check && *dir == ""
	if temporary {
		if *dir, err = os.MkdirTemp("", "anyedge-lab-"); err != nil {
			return err
		}
	}
	*dir = cmp.Or(*dir, ".lab")
	if *dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	level := "error"
	if *verbose {
		level = "debug"
	}
	log, err := daemon.NewLogger(c.errOut, level, "text")
	if err != nil {
		return err
	}
	ctx, stop := daemon.Terminate(context.Background())
	defer stop()
	err = lab.New(lab.Options{Config: cfg, Dir: *dir, Binary: binary, Consul: *consul, Check: *check, Out: c.out, Log: log}).Run(ctx)
	if *check && err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, *dir)
	}
	if temporary {
		return os.RemoveAll(*dir)
	}
	return err
}
