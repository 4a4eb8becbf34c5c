package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"strings"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/pop"
)

// runCheck validates config files and prints every problem at once. With
// --against-fleet it also says what they would change, taken together.
func runCheck(c *invocation) error {
	files := c.configFlag()
	against := c.flags.Bool("against-fleet", false, "compare what the pop configs would announce with what the fleet announces now")
	var admin netip.AddrPort
	c.flags.TextVar(&admin, "admin", admin, "`ip:port` of a node's admin API to ask about the fleet, in place of the store that the first config names")
	asJSON := c.flags.Bool("json", false, "print the comparison as JSON")
	var retire []netip.Prefix
	c.flags.Func("retire", "a `prefix` that is meant to be announced nowhere any more; can be given again", func(s string) error {
		p, err := netip.ParsePrefix(s)
		retire = append(retire, p.Masked())
		return err
	})
	if err := c.parse(0); err != nil {
		return err
	}
	if len(*files) == 0 {
		return usagef("--config is required")
	}
	if !*against && (admin.IsValid() || *asJSON || retire != nil) {
		return usagef("--admin, --json and --retire go with --against-fleet")
	}
	var errs []error
	for _, file := range *files {
		errs = append(errs, c.checkFile(file, *against, *asJSON))
	}
	if err := errors.Join(errs...); err != nil || !*against {
		return err
	}
	return c.checkAgainstFleet(*files, admin, retire, *asJSON)
}

// configFlag takes one or more config files.
func (c *invocation) configFlag() *[]string {
	files := new([]string)
	c.flags.Func("config", "the config `file`; can be given again", func(s string) error {
		*files = append(*files, s)
		return nil
	})
	return files
}

// checkFile validates one config file.
func (c *invocation) checkFile(file string, wantPop, silent bool) error {
	kind, err := configs.Check(file)
	var problems configs.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(c.errOut, p.Error())
		}
		return fmt.Errorf("%s: not valid, problems: %d", file, len(problems))
	}
	if err != nil {
		return err
	}
	if wantPop && kind != configs.KindPop {
		return fmt.Errorf("%s: a %s config announces nothing; --against-fleet compares pop configs", file, kind)
	}
	if kind == configs.KindPop {
		cfg, err := configs.LoadPop(file)
		if err == nil {
			err = pop.CheckBGP(cfg)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if kind == configs.KindGSLB {
		cfg, err := configs.LoadGSLB(file)
		if err == nil {
			err = gslb.Check(cfg)
		}
		if err != nil {
			fmt.Fprintln(c.errOut, err)
			return fmt.Errorf("%s: not valid: what it names is not", file)
		}
	}
	if !silent {
		fmt.Fprintf(c.out, "%s: a valid %s config\n", file, kind)
	}
	return nil
}

// runSchema prints a JSON Schema for editors.
func runSchema(c *invocation) error {
	if err := c.parse(1); err != nil {
		return err
	}
	schema, err := configs.Schema(c.flags.Arg(0))
	if err != nil {
		return usageError{err}
	}
	_, err = c.out.Write(schema)
	return err
}

// runVersion prints what was built.
func runVersion(c *invocation) error {
	if err := c.parse(0); err != nil {
		return err
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("built without module information")
	}
	words := []string{"anyedge", info.Main.Version, info.GoVersion}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			words = append(words, s.Value)
		}
	}
	fmt.Fprintln(c.out, strings.Join(words, " "))
	return nil
}
