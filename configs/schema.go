package configs

import (
	"embed"
	"fmt"
)

//go:embed schema/*.schema.json
var schemas embed.FS

// Schema returns the JSON Schema (draft 2020-12) of a kind of config: [KindPop],
// [KindGSLB] or [KindLab]. Editors use it to complete and explain keys. It
// states what a key may hold on its own. Rules between keys are those of the
// Parse functions only; so is null in place of an absent key, which programs
// write and people should not.
func Schema(kind string) ([]byte, error) {
	data, err := schemas.ReadFile("schema/" + kind + ".schema.json")
	if err != nil {
		return nil, fmt.Errorf("no config kind is named %q; want %s, %s or %s", kind, KindPop, KindGSLB, KindLab)
	}
	return data, nil
}
