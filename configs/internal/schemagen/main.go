// Schemagen writes the JSON Schemas of the config files from the source of
// package configs: types, tags and comments. It runs by "go generate" in the
// folder of that package.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	src, err := readSource(dir)
	if err != nil {
		return err
	}
	for file, root := range outputs {
		data, err := src.schema(root)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// outputs names the root struct of each schema file.
var outputs = map[string]string{
	"schema/pop.schema.json":  "Pop",
	"schema/gslb.schema.json": "GSLB",
	"schema/lab.schema.json":  "Lab",
}
