// Package headroom is the arithmetic of ceilings: how full a node is, and
// whether the others could take its load.
//
// Every resource of a node has a known ceiling: connections, descriptors,
// memory, processors. Use is compared with it at two marks. At [WarnAt] somebody
// should look, at [ShedAt] a node takes no more than it must, which leaves the
// last tenth for the load of a neighbor that fails at that moment.
//
// The package does no I/O, keeps no state, and its functions may be called by
// any number of goroutines.
package headroom

// The marks, as fractions of a ceiling.
const (
	WarnAt = 0.70
	ShedAt = 0.90
)

// Usage is how much of one resource is used, in the resource's own unit.
type Usage struct {
	Resource string  `json:"resource"`
	Used     float64 `json:"used"`
	Ceiling  float64 `json:"ceiling"`
}

// Utilization returns the used fraction of the ceiling: 0 or more, above 1 when
// the ceiling is exceeded. A ceiling that is not positive means that there is
// none of the resource, so that any use of it is full use.
func (u Usage) Utilization() float64 {
	switch {
	case !(u.Used > 0):
		return 0
	case !(u.Ceiling > 0):
		return 1
	}
	return u.Used / u.Ceiling
}

// free returns what may still be used below the shed mark, 0 or more.
func (u Usage) free() float64 { return max(0, ShedAt*max(u.Ceiling, 0)-max(u.Used, 0)) }

// Level says how full a resource is.
type Level string

// The levels.
const (
	OK   Level = "ok"   // below WarnAt
	Warn Level = "warn" // from WarnAt on
	Shed Level = "shed" // from ShedAt on
)

// LevelOf returns the level of a use.
func LevelOf(u Usage) Level {
	switch used := u.Utilization(); {
	case used >= ShedAt:
		return Shed
	case used >= WarnAt:
		return Warn
	}
	return OK
}
