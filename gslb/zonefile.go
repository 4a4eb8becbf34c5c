package gslb

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Zone names a zone and where its content is.
type Zone struct {
	// Name is the apex.
	Name string
	// File is a zone file (RFC 1035 section 5). $INCLUDE works for files in the
	// same folder and below it.
	File string
	// Text is the content itself, used if File is empty; it has no $INCLUDE.
	Text string
	// Primaries make the zone a copy of theirs: the first that answers is taken.
	// File and Text are not used.
	Primaries []Peer
	// CopyFile keeps the copy of a zone with primaries, for a start while none of them
	// answers. The server writes it. Default none.
	CopyFile string
	// Alias names what the apex has the addresses of, instead of A and AAAA records
	// of its own: a steered name, or any that Config.Resolvers know. Zones with
	// primaries have none.
	Alias string
	// Transfer says who may have a copy of it; nil for nobody. Copies have no
	// signatures that are made here.
	Transfer *Transfer
	// Signing says how it is signed, once it has keys.
	Signing Signing
}

// Bounds of a zone: its file, and its records after $GENERATE and $INCLUDE.
const (
	maxZoneSize    = 64 << 20
	maxZoneRecords = 1 << 20
)

// loadZone reads and checks a zone. The error joins every problem found, each
// with file and line.
func loadZone(from Zone) (*zone, error) {
	apex, err := parseName(from.Name)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	if len(from.Primaries) > 0 {
		return expired(apex, from.Name, from.Transfer), nil
	}
	if from.File == "" {
		return parseZone(apex, from.Name, strings.NewReader(from.Text), nil)
	}
	folder, err := os.OpenRoot(filepath.Dir(from.File))
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", from.Name, err)
	}
	defer folder.Close()
	file, err := os.Open(from.File) // which may be a link to elsewhere
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", from.Name, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxZoneSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("zone %s: %w", from.Name, err)
	case len(data) > maxZoneSize:
		return nil, fmt.Errorf("%s: larger than %d bytes", from.File, maxZoneSize)
	}
	return parseZone(apex, from.File, bytes.NewReader(data), folder)
}

// lineCounter counts the lines that the parser has taken. The parser reads byte
// by byte and no further than the record that it returns.
type lineCounter struct {
	io.ByteReader
	ended   int
	partial bool
}

func (c *lineCounter) ReadByte() (byte, error) {
	b, err := c.ByteReader.ReadByte()
	if err == nil {
		c.partial = b != '\n'
		if b == '\n' {
			c.ended++
		}
	}
	return b, err
}

// Read is there because the parser asks for a reader; it uses ReadByte.
func (c *lineCounter) Read([]byte) (int, error) {
	return 0, errors.ErrUnsupported
}

func (c *lineCounter) line() int {
	if c.partial {
		return c.ended + 1
	}
	return c.ended
}

// zoneLoad is a zone while it is read.
type zoneLoad struct {
	*zone
	errs    []error
	scratch [dns.MaxMsgSize]byte
}

func (l *zoneLoad) fail(line int, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("%s:%d: %s", l.source, line, fmt.Sprintf(format, args...)))
}

// parseZone reads a zone from text; source names it in errors. A nil folder
// forbids $INCLUDE.
func parseZone(apex name, source string, text io.ByteReader, folder *os.Root) (*zone, error) {
	l := zoneLoad{zone: &zone{name: apex, source: source, nodes: make(map[name]*node)}}
	lines := &lineCounter{ByteReader: text}
	parser := dns.NewZoneParser(lines, apex.String(), filepath.Base(source))
	if folder != nil {
		parser.SetIncludeAllowed(true)
		parser.SetIncludeFS(folder.FS())
	}
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if l.records++; l.records > maxZoneRecords {
			l.fail(lines.line(), "more than %d records", maxZoneRecords)
			return nil, errors.Join(l.errs...)
		}
		l.add(rr, lines.line())
	}
	if err := parser.Err(); err != nil {
		l.errs = append(l.errs, located(source, err))
		return nil, errors.Join(l.errs...) // a check of half a zone finds ghosts
	}
	l.check()
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.zone, nil
}

// parserError is how the library prints where it stopped.
var parserError = regexp.MustCompile(`^(.*?): dns: (.*) at line: (\d+):(\d+)$`)

// located puts a parser's error into the usual form. The file in it is relative
// to the zone's.
func located(source string, err error) error {
	m := parserError.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return fmt.Errorf("%s:%s:%s: %s", filepath.Join(filepath.Dir(source), m[1]), m[3], m[4], m[2])
}

// add takes a record into the zone if it can be in one.
func (l *zoneLoad) add(rr dns.RR, line int) {
	h := rr.Header()
	owner, err := parseName(h.Name)
	switch {
	case err != nil:
		l.fail(line, "%v", err)
		return
	case !owner.under(l.name):
		l.fail(line, "%s is not in the zone %s", h.Name, l.name)
		return
	case h.Class != dns.ClassINET:
		l.fail(line, "%s: class %s; only IN is served", h.Name, dns.Class(h.Class))
		return
	case h.Ttl > math.MaxInt32: // RFC 2181 section 8
		l.fail(line, "%s: TTL %d is out of range", h.Name, h.Ttl)
		return
	}
	h.Name = owner.String()
	nodes := l.nodes
	switch h.Rrtype {
	case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM:
		var wrong string
		if nodes, wrong = l.presign(rr, owner, line); wrong != "" {
			l.fail(line, "%s: %s", h.Name, wrong)
			return
		}
	case dns.TypeSOA:
		if owner != l.name {
			l.fail(line, "%s: SOA below the apex %s", h.Name, l.name)
			return
		}
	case dns.TypeNS, dns.TypeDNAME:
		if owner.isWildcard() { // RFC 4592 sections 4.2 and 4.4
			l.fail(line, "%s: %s at a wildcard", h.Name, dns.Type(h.Rrtype))
			return
		}
	}
	if isMeta(h.Rrtype) {
		l.fail(line, "%s: %s is not a type of records", h.Name, dns.Type(h.Rrtype))
		return
	}
	// What the parser lets through may still not be writable.
	if _, err := dns.PackRR(rr, l.scratch[:], 0, nil, false); err != nil {
		l.fail(line, "%s: the %s record is not valid", h.Name, dns.Type(h.Rrtype))
		return
	}
	set := l.set(nodes, owner, h.Rrtype, line)
	if slices.ContainsFunc(set.records, func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }) {
		return // RFC 2181 section 5
	}
	set.records = append(set.records, rr)
	if h.Rrtype == dns.TypeRRSIG {
		return // each has the TTL of what it signs (RFC 4034 section 3)
	}
	// One TTL for all of a set (RFC 2181 section 5.2).
	ttl := min(h.Ttl, set.records[0].Header().Ttl)
	for _, each := range set.records {
		each.Header().Ttl = ttl
	}
}

// isMeta reports whether a type is one of queries or of the protocol itself, not
// of data (RFC 6895 section 3.1).
func isMeta(rtype uint16) bool {
	return rtype == dns.TypeNone || rtype == dns.TypeOPT || 128 <= rtype && rtype <= 255
}

// set returns the set of a type at a name of some, and makes the names above it
// exist.
func (l *zoneLoad) set(nodes map[name]*node, owner name, rtype uint16, line int) *rrset {
	n := nodes[owner]
	if n == nil {
		n = new(node)
		nodes[owner] = n
		for _, above := range owner.below(l.name) {
			if nodes[above] == nil {
				nodes[above] = new(node)
			}
		}
	}
	for i := range n.sets {
		if n.sets[i].rtype == rtype {
			return &n.sets[i]
		}
	}
	n.sets = append(n.sets, rrset{rtype: rtype, line: line})
	n.cut = n.cut || rtype == dns.TypeNS && owner != l.name
	return &n.sets[len(n.sets)-1]
}

// check looks at the zone as a whole, in the order of its lines.
func (l *zoneLoad) check() {
	apex := l.nodes[l.name]
	soa := apex.get(dns.TypeSOA)
	if len(soa) == 0 {
		l.errs = append(l.errs, fmt.Errorf("%s: no SOA record at %s", l.source, l.name))
	} else {
		l.negative = dns.Copy(soa[0]).(*dns.SOA)
		l.negative.Hdr.Ttl = min(l.negative.Hdr.Ttl, l.negative.Minttl)
	}
	if len(apex.get(dns.TypeNS)) == 0 {
		l.errs = append(l.errs, fmt.Errorf("%s: no NS record at %s", l.source, l.name))
	}
	l.records = 0
	type problem struct {
		line int
		text string
	}
	var problems []problem
	for owner, n := range l.nodes {
		if n.get(dns.TypeCNAME) != nil {
			l.aliases = append(l.aliases, owner)
		}
		for i := range n.sets {
			l.records += len(n.sets[i].records)
			if text := l.objection(owner, n, &n.sets[i]); text != "" {
				problems = append(problems, problem{n.sets[i].line, fmt.Sprintf("%s: %s", owner, text)})
			}
		}
	}
	slices.SortFunc(problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.text, b.text))
	})
	for _, p := range problems {
		l.fail(p.line, "%s", p.text)
	}
	if l.presigned != nil && apex != nil {
		l.presigned.link(l.zone)
	}
}

// objection says what is wrong with a set in its place, "" if nothing is.
func (l *zoneLoad) objection(owner name, n *node, set *rrset) string {
	switch set.rtype {
	case dns.TypeSOA, dns.TypeDNAME:
		if len(set.records) > 1 {
			return fmt.Sprintf("more than one %s record", dns.Type(set.rtype))
		}
	case dns.TypeCNAME: // RFC 2181 section 10.1
		others := slices.ContainsFunc(n.sets, func(other rrset) bool {
			return other.rtype != dns.TypeCNAME && !ofSigning(other.rtype)
		})
		if len(set.records) > 1 || others {
			return "CNAME beside other records"
		}
	case dns.TypeNS:
		if !n.cut {
			break
		}
		for _, rr := range set.records {
			target, err := parseName(rr.(*dns.NS).Ns)
			if err != nil || !target.under(owner) {
				continue
			}
			if records, _ := l.glue(owner, []dns.RR{rr}); len(records) == 0 {
				return fmt.Sprintf("delegated to %s, which has no address here", target)
			}
		}
	}
	above := owner.below(l.name)
	for i := range len(above) - 1 {
		if l.nodes[above[i]].get(dns.TypeDNAME) != nil {
			return fmt.Sprintf("below the DNAME of %s", above[i]) // RFC 6672 section 2.4
		}
	}
	if owner != l.name && l.nodes[l.name].get(dns.TypeDNAME) != nil {
		return "below the DNAME of the apex"
	}
	return ""
}
