package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span written with its unit, such as "250ms" or "1h30m".
// A bare number is refused, because a reader cannot tell seconds from
// milliseconds. Negative spans are refused.
type Duration time.Duration

// Std returns d as a standard library duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d as it would be written in a config file, such as "1h30m".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a duration; write a number with a unit, such as 250ms, 5s or 1h", quote(string(text)))
	}
	if v < 0 {
		return fmt.Errorf("%s is negative", quote(string(text)))
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes written with its unit: B, KiB, MiB or GiB.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String returns s in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return "0B"
}

// MarshalText implements [encoding.TextMarshaler].
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%s is not a size; write a whole number with a unit: B, KiB, MiB or GiB", quote(string(text)))
}

// Percent is a share of a whole written as "34%", 0% to 100%.
type Percent float64

// Fraction returns p as a number from 0 to 1.
func (p Percent) Fraction() float64 { return float64(p) / 100 }

// String returns p as it would be written in a config file.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText implements [encoding.TextMarshaler].
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Percent) UnmarshalText(text []byte) error {
	digits, ok := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) || strings.Trim(digits, "0123456789.") != "" {
		return fmt.Errorf("%s is not a percentage from 0%% to 100%%", quote(string(text)))
	}
	*p = Percent(v)
	return nil
}
