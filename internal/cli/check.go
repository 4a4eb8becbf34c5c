package cli

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"anyedge/configs"
)

// runCheck validates a config file and prints every problem at once.
func runCheck(c *invocation) error {
	file := c.flags.String("config", "", "the config `file`")
	if err := c.parse(0); err != nil {
		return err
	}
	if *file == "" {
		return usagef("--config is required")
	}
	kind, err := configs.Check(*file)
	var problems configs.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(c.errOut, p.Error())
		}
		return fmt.Errorf("%s: not valid, problems: %d", *file, len(problems))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: a valid %s config\n", *file, kind)
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
