// Package configs reads the config files of anyedge: one kind for a node of a
// point of presence ([Pop]), one for a DNS node ([GSLB]) and one for the lab
// ([Lab]).
//
// A file is YAML or JSON. Reading is strict and reports everything at once: an
// unknown or repeated key, a value of the wrong type or out of range, a
// reference to something that is not there. Each problem is an [Error] with
// file, line, column and path, such as
//
//	pop.yaml:31:16: pools[2].backends[0].address: "10.1.0.4" is not an address and port such as 192.0.2.1:443
//
// Parse functions are pure. Load functions read one file and resolve the
// relative paths in it against its folder. [Check] also looks at the files
// that the config names.
//
// # Values
//
// The zero value of a field means its default, which its comment states. A key
// that is absent or null leaves the field at zero. A zero that is written out
// is refused where the field has another default, because it would not do what
// it says; the fields where zero has a meaning beside a default are pointers.
//
// Most rules of a single field are struct tags beside the yaml tag:
//
//	default:"2s"          the value of an absent key
//	range:"10ms..1h"      the smallest and largest value
//	enum:"tcp http"       the words allowed, of each element for a list
//	required:"true"       absent, empty and zero are refused
//	format:"name"         name, host or domain: see isName, isHost, isDomain
//	file:"secret"         a path; secret files must be closed to other users
//	file:"state"          a secret file that the process writes; it may be missing
//	restart:"change"      a running process does not take a change: see FixedKeys
//	restart:"presence"    nor that the key comes or goes
//
// Rules that relate fields to each other are Go code, one file per kind. The
// JSON Schemas in schema/ are generated from the structs, tags and comments.
//
// # Concurrency
//
// Functions are safe for concurrent use. Configs are plain values: nothing in
// this package keeps or changes one after it has been returned.
package configs

//go:generate go run ./internal/schemagen
