package tickets

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Schedule is the pace of a ring. All nodes of a fleet should have the same;
// where they differ, the one that rotates decides. Zero fields mean the
// documented defaults.
type Schedule struct {
	// Rotate is how long one key encrypts. Default 1h, at least 4·Propagation.
	Rotate time.Duration
	// Keep is for how many rotations a key still decrypts after it has ceased
	// to encrypt, 1 to 16. Default 2.
	Keep int
	// Propagation bounds how old any node's view of the ring is while the
	// store works, and how far any two clocks differ. A key is published at
	// least twice this long before it encrypts. Default 30s.
	Propagation time.Duration
}

// Validate returns every way in which the schedule is out of range.
func (s Schedule) Validate() error {
	s = s.withDefaults()
	var errs []error
	if s.Propagation < 0 {
		errs = append(errs, fmt.Errorf("propagation %s is negative", s.Propagation))
	}
	if s.Rotate < 4*s.Propagation || s.Rotate <= 0 {
		errs = append(errs, fmt.Errorf("rotate %s is less than four times propagation %s", s.Rotate, s.Propagation))
	}
	if s.Keep < 1 || s.Keep > 16 {
		errs = append(errs, fmt.Errorf("keep %d is not from 1 to 16", s.Keep))
	}
	return errors.Join(errs...)
}

func (s Schedule) withDefaults() Schedule {
	s.Rotate = cmp.Or(s.Rotate, time.Hour)
	s.Keep = cmp.Or(s.Keep, 2)
	s.Propagation = cmp.Or(s.Propagation, 30*time.Second)
	return s
}

// horizon is how far ahead the next key may lie. Publishers put it at most
// Rotate ahead; the rest allows for clocks. A key beyond it came from a clock
// that was wrong, or from a slower schedule, and must not stop the rotation.
func (s Schedule) horizon() time.Duration { return s.Rotate + 2*s.Propagation }

// retention is how long a key decrypts after it has ceased to encrypt.
func (s Schedule) retention() time.Duration { return time.Duration(s.Keep) * s.Rotate }
