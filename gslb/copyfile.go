package gslb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/miekg/dns"
)

// A copy of a zone can be in a file too, for a start while no primary answers. The
// file is a zone file, and its time of modification is when a primary last had this
// version of the zone: from then on its SOA record says how long it may be used.

// keepCopy puts the copy of a zone that a primary has just been seen to have into
// the link's file. Only the link's goroutine calls it.
func (s *Server) keepCopy(l *link, z *zone, now time.Time) {
	path := l.zone.CopyFile
	if path == "" {
		return
	}
	var err error
	if l.kept == z {
		err = os.Chtimes(path, now, now)
	}
	if l.kept != z || errors.Is(err, fs.ErrNotExist) {
		err = replaceFile(path, z.writeTo)
	}
	l.kept = z
	if err != nil {
		l.kept = nil // so the next time tries again
		err = fmt.Errorf("copy not kept: %w", err)
		s.log.Error("copy of a zone not kept in its file", "zone", canonical(l.zone.Name), "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.following.FileError = ""
	if err != nil {
		l.following.FileError = err.Error()
	}
}

// writeTo writes a zone as a zone file.
func (z *zone) writeTo(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	fmt.Fprintf(out, "; %s, a copy that anyedge keeps\n%v\n", z.source, z.soa())
	for _, rr := range z.all() {
		line := rr.String()
		if !readable(rr, line) {
			var generic dns.RFC3597
			if err := generic.ToRFC3597(rr); err != nil {
				return err
			}
			line = generic.String()
		}
		fmt.Fprintln(out, line)
	}
	return out.Flush()
}

// readable reports whether the text of a record reads as that record. The library
// has no text for some types; those that make zones large it is known to have.
func readable(rr dns.RR, text string) bool {
	switch rr.(type) {
	case *dns.A, *dns.AAAA, *dns.NS, *dns.CNAME, *dns.DS, *dns.RRSIG, *dns.NSEC, *dns.NSEC3:
		return true
	}
	again, err := dns.NewRR(text)
	return err == nil && again != nil && dns.IsDuplicate(rr, again) && rr.Header().Ttl == again.Header().Ttl
}

// recall puts the copies that files have in place of zones that are to come from
// primaries, unless they have expired. A file that cannot be used is no more than a
// copy that is not there.
func (s *Server) recall(from []Zone, zones map[name]*zone) {
	for _, f := range from {
		n, err := parseName(f.Name)
		if z := zones[n]; err != nil || f.CopyFile == "" || z == nil || !z.unavailable {
			continue
		}
		z, err := readCopy(n, f.CopyFile, time.Now())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			s.log.Warn("kept copy of a zone not used", "zone", canonical(f.Name), "error", err)
		default:
			z.transfer, z.signing = zones[n].transfer, zones[n].signing
			zones[n] = z
			s.log.Info("zone taken from its kept copy", "zone", canonical(f.Name), "serial", z.soa().Serial, "seen", z.seen)
		}
	}
}

// readCopy reads a file that keepCopy has written.
func readCopy(n name, path string, now time.Time) (*zone, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // read only
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var records []dns.RR
	parser := dns.NewZoneParser(bufio.NewReader(file), n.String(), path)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if records = append(records, rr); len(records) > maxZoneRecords {
			return nil, fmt.Errorf("%s: more than %d records", path, maxZoneRecords)
		}
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	z, err := zoneOf(n, path, records)
	if err != nil {
		return nil, err
	}
	// A clock that was set back makes no copy younger than new.
	if z.seen = info.ModTime(); z.seen.After(now) {
		z.seen = now
	}
	if age, most := now.Sub(z.seen), time.Duration(z.soa().Expire)*time.Second; age >= most {
		return nil, fmt.Errorf("%s: expired: no primary has answered for %v, and the zone allows %v", path, age.Round(time.Second), most)
	}
	return z, nil
}
