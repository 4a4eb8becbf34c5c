package gslb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Times of copies of zones.
const (
	minRefresh     = 5 * time.Second // whatever a SOA record says
	firstRetry     = 5 * time.Second // without a SOA record, then longer and longer
	lastRetry      = 2 * time.Minute
	transferTime   = 2 * time.Minute // that a transfer may take
	exchangeTime   = 3 * time.Second // that an answer may take
	notifyAttempts = 5
)

// link is what the server does for one zone beside answering: it follows the
// primaries of a copy, or the target of an alias.
type link struct {
	zone   Zone
	kick   chan struct{} // of capacity 1: look at the primaries now
	cancel context.CancelFunc
	// following is how it goes; Server.mu guards it.
	following Following
	kept      *zone // that the file has; of the goroutine that follows
}

// follow keeps the links in step with the zones, until ctx is done.
func (s *Server) follow(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	told := make(map[name]uint32) // serials
	for {
		for n, z := range s.view.Load().zones {
			if z.unavailable || z.transfer == nil {
				continue
			}
			serial := z.soa().Serial
			if known, before := told[n]; !before || known != serial {
				told[n] = serial
				for _, peer := range z.transfer.Notify {
					tasks.Go(func() { s.notify(ctx, z, peer) })
				}
			}
		}
		s.mu.Lock()
		for _, l := range s.links {
			if l.cancel == nil {
				var each context.Context
				each, l.cancel = context.WithCancel(ctx)
				if l.zone.Alias != "" {
					tasks.Go(func() { s.chase(each, l) })
				} else {
					tasks.Go(func() { s.copy(each, l) })
				}
			}
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
	}
}

// relink makes the links those of the given zones. Links of zones that stay as
// they are stay too. s.mu is held.
func (s *Server) relink(zones []Zone) {
	links := make(map[name]*link)
	for _, z := range zones {
		if len(z.Primaries) == 0 && z.Alias == "" {
			continue
		}
		n, _ := parseName(z.Name) // it was loaded
		if l := s.links[n]; l != nil && l.zone.Alias == z.Alias && l.zone.CopyFile == z.CopyFile && slices.Equal(l.zone.Primaries, z.Primaries) {
			links[n] = l
			continue
		}
		links[n] = &link{zone: z, kick: make(chan struct{}, 1)}
	}
	for n, l := range s.links {
		if links[n] != l && l.cancel != nil {
			l.cancel()
		}
	}
	s.links = links
}

// copy keeps a copy of a zone, until ctx is done: RFC 1034 section 4.3.5.
func (s *Server) copy(ctx context.Context, l *link) {
	fresh, retry := time.Now(), firstRetry
	n, _ := parseName(l.zone.Name) // it was loaded
	if z := s.view.Load().zones[n]; z != nil && !z.seen.IsZero() {
		fresh = z.seen
	}
	for {
		wait := retry
		err := s.refresh(ctx, n, l.zone)
		if ctx.Err() != nil {
			return
		}
		z := s.view.Load().zones[n]
		if z == nil {
			return
		}
		if err == nil {
			fresh = time.Now()
			s.keepCopy(l, z, fresh)
		} else {
			s.m.transfers.WithLabelValues("failed").Inc()
			message := "zone not refreshed, the last copy stays"
			if z.unavailable {
				message = "zone not transferred, there is no copy"
			}
			s.log.Warn(message, "zone", l.zone.Name, "error", err)
		}
		var expires time.Time
		if retry = min(2*retry, lastRetry); !z.unavailable {
			retry = firstRetry
			soa := z.soa()
			expires = fresh.Add(time.Duration(soa.Expire) * time.Second)
			wait = time.Duration(soa.Refresh) * time.Second
			if err != nil {
				wait = time.Duration(soa.Retry) * time.Second
				if left := time.Until(expires); left <= 0 {
					s.log.Error("zone expired", "zone", l.zone.Name)
					expires = time.Time{}
					s.putZone(l, expired(n, z.source, z.transfer))
				} else {
					wait = min(wait, left)
				}
			}
			wait = max(wait, minRefresh)
		}
		s.followed(l, err, wait, expires)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-l.kick:
			timer.Stop()
		}
	}
}

// expired stands for a zone of which there is no copy that may be used.
func expired(n name, source string, t *Transfer) *zone {
	return &zone{name: n, source: source, transfer: t, unavailable: true}
}

// refresh asks the primaries, one after the other, until one has answered, and
// takes the zone from it if it is newer.
func (s *Server) refresh(ctx context.Context, n name, from Zone) error {
	var errs []error
	for _, peer := range from.Primaries {
		err := s.refreshFrom(ctx, n, from, peer)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, fmt.Errorf("from %v: %w", peer.Address, err))
	}
	return errors.Join(errs...)
}

func (s *Server) refreshFrom(ctx context.Context, n name, from Zone, peer Peer) error {
	q := new(dns.Msg)
	q.SetQuestion(n.String(), dns.TypeSOA)
	q.RecursionDesired = false
	r, err := s.ask(ctx, q, peer)
	if err != nil {
		return err
	}
	if r.Rcode != dns.RcodeSuccess || !r.Authoritative || len(r.Answer) != 1 || r.Answer[0].Header().Rrtype != dns.TypeSOA {
		return fmt.Errorf("no authoritative SOA record, but %s", dns.RcodeToString[r.Rcode])
	}
	current := s.view.Load().zones[n]
	if current == nil {
		return nil // the config has changed
	}
	serial := r.Answer[0].(*dns.SOA).Serial
	if !current.unavailable && !newer(serial, current.soa().Serial) {
		if have := current.soa().Serial; serial != have {
			s.log.Warn("primary has an older serial, the copy stays", "zone", from.Name, "primary", peer.Address, "serial", serial, "copy", have)
		}
		return nil
	}
	next, err := s.fetch(ctx, n, current, peer)
	if err != nil {
		return err
	}
	next.transfer = from.Transfer
	s.mu.Lock()
	l := s.links[n]
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := s.putZone(l, next); err != nil {
		return err
	}
	s.m.transfers.WithLabelValues("ok").Inc()
	s.log.Info("zone transferred", "zone", from.Name, "primary", peer.Address, "serial", next.soa().Serial)
	return nil
}

// putZone replaces one zone.
func (s *Server) putZone(l *link, next *zone) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[next.name] != l {
		return nil // the config has changed meanwhile
	}
	zones := make(map[name]*zone, len(s.zones))
	for n, z := range s.zones {
		zones[n] = z
	}
	next.signing, next.signer = l.zone.Signing, s.zones[next.name].signer
	zones[next.name] = next
	err := s.setView(zones, s.table)
	s.m.updated("zones", &s.m.zonesAt, err)
	return err
}

// fetch transfers a zone: what changed since the current one, if there is one,
// else all of it, also if the changes cannot be had or do not fit (RFC 1995
// section 4).
func (s *Server) fetch(ctx context.Context, n name, current *zone, peer Peer) (*zone, error) {
	q := new(dns.Msg)
	source := fmt.Sprintf("%s from %v", n, peer.Address)
	if !current.unavailable {
		soa := current.soa()
		q.SetIxfr(n.String(), soa.Serial, soa.Ns, soa.Mbox)
		records, err := s.transferIn(ctx, q, peer)
		if err == nil {
			records, err = apply(current, records)
		}
		if err == nil {
			return zoneOf(n, source, records)
		}
		s.log.Info("changes of a zone not taken, all of it is", "zone", canonical(n.String()), "primary", peer.Address, "error", err)
		q = new(dns.Msg)
	}
	q.SetAxfr(n.String())
	records, err := s.transferIn(ctx, q, peer)
	if err != nil {
		return nil, err
	}
	return zoneOf(n, source, records)
}

// transferIn returns the records that answer a request for a zone or its changes.
func (s *Server) transferIn(ctx context.Context, q *dns.Msg, peer Peer) ([]dns.RR, error) {
	s.sign(q, peer)
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	client := s.client("tcp", peer)
	conn, err := client.DialContext(ctx, peer.Address.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	transfer := dns.Transfer{Conn: conn, ReadTimeout: transferTime}
	if peer.Key != "" {
		transfer.TsigProvider = s.ring()
	}
	envelopes, err := transfer.In(q, peer.Address.String())
	if err != nil {
		return nil, err
	}
	var records []dns.RR
	for e := range envelopes {
		if err == nil {
			err = e.Error
		}
		if records = append(records, e.RR...); len(records) > 2*maxZoneRecords && err == nil {
			err = fmt.Errorf("more than %d records", 2*maxZoneRecords)
			conn.Close()
		}
	}
	return records, err
}

// apply returns the records of a zone after the answer to a request for changes,
// which may be the whole zone too (RFC 1995 section 4).
func apply(current *zone, answer []dns.RR) ([]dns.RR, error) {
	soa := func(i int) *dns.SOA {
		if i >= len(answer) {
			return nil
		}
		s, _ := answer[i].(*dns.SOA)
		return s
	}
	last := soa(0)
	if last == nil {
		return nil, errors.New("an answer that does not begin with a SOA record")
	}
	if first := soa(1); first == nil || len(answer) == 2 {
		return answer, nil
	}
	have := make(map[string]dns.RR)
	for _, rr := range current.all() {
		have[rr.String()] = rr
	}
	for _, rr := range answer { // the zone has its names in lower case
		if n, err := parseName(rr.Header().Name); err == nil {
			rr.Header().Name = n.String()
		}
	}
	serial := current.soa().Serial
	i := 1
	for serial != last.Serial {
		if from := soa(i); from == nil || from.Serial != serial {
			return nil, fmt.Errorf("changes that do not begin at serial %d", serial)
		}
		for i++; i < len(answer) && soa(i) == nil; i++ {
			text := answer[i].String()
			if have[text] == nil {
				return nil, fmt.Errorf("changes remove %q, which is not there", text)
			}
			delete(have, text)
		}
		to := soa(i)
		if to == nil {
			return nil, errors.New("changes that end early")
		}
		serial = to.Serial
		for i++; i < len(answer) && soa(i) == nil; i++ {
			have[answer[i].String()] = answer[i]
		}
	}
	records := []dns.RR{last}
	for _, rr := range have {
		records = append(records, rr)
	}
	return records, nil
}

// zoneOf makes and checks a zone of records.
func zoneOf(n name, source string, records []dns.RR) (*zone, error) {
	l := zoneLoad{zone: &zone{name: n, source: source, nodes: make(map[name]*node)}}
	for i, rr := range records {
		l.records++
		l.add(dns.Copy(rr), i+1)
	}
	if len(l.errs) == 0 {
		l.check()
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.zone, nil
}

// notify tells a server that a zone has changed, until it answers.
func (s *Server) notify(ctx context.Context, z *zone, peer Peer) {
	wait := exchangeTime
	for range notifyAttempts {
		q := new(dns.Msg)
		q.SetNotify(z.name.String())
		q.Answer = []dns.RR{z.soa()}
		r, err := s.ask(ctx, q, peer)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if r.Rcode != dns.RcodeSuccess {
				s.log.Warn("notice of a change refused", "zone", canonical(z.name.String()), "to", peer.Address, "rcode", dns.RcodeToString[r.Rcode])
			}
			return
		}
		pause(ctx, wait)
		wait *= 2
	}
	s.log.Warn("notice of a change not answered", "zone", canonical(z.name.String()), "to", peer.Address)
}

// notified answers a notice of a change, RFC 1996: those of a primary, or signed
// by its key, make the server look.
func (s *Server) notified(v *view, req *request, sig *signature) response {
	var m, reply dns.Msg
	if m.Unpack(req.msg) != nil || len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA {
		return v.respond(*req)
	}
	reply.SetReply(&m)
	reply.Rcode = dns.RcodeNotAuth
	n, err := parseName(m.Question[0].Name)
	s.mu.Lock()
	l := s.links[n]
	s.mu.Unlock()
	switch {
	case err != nil || l == nil || len(l.zone.Primaries) == 0:
	case !isPrimary(l.zone.Primaries, req.from, sig):
		reply.Rcode = dns.RcodeRefused
		s.refusal("notice of a change refused", "zone", canonical(l.zone.Name), "from", req.from, "reason", "neither from a primary nor signed by the key of one")
	default:
		reply.Rcode, reply.Authoritative = dns.RcodeSuccess, true
		select {
		case l.kick <- struct{}{}:
		default: // it will look anyway
		}
	}
	out := response{asked: true, qtype: dns.TypeSOA, rcode: reply.Rcode}
	if sig != nil {
		out.msg, _ = sig.sign(&reply)
	} else {
		out.msg, _ = reply.Pack()
	}
	return out
}

func isPrimary(primaries []Peer, from netip.Addr, sig *signature) bool {
	return slices.ContainsFunc(primaries, func(p Peer) bool {
		if p.Key != "" {
			return sig != nil && dns.CanonicalName(p.Key) == dns.CanonicalName(sig.tsig.Hdr.Name)
		}
		return p.Address.Addr() == from
	})
}

// sign asks for a message to be signed with a peer's key.
func (s *Server) sign(q *dns.Msg, peer Peer) {
	if peer.Key != "" {
		name := dns.CanonicalName(peer.Key)
		q.SetTsig(name, s.ring()[name].Algorithm, tsigFudge, time.Now().Unix())
	}
}

// ask exchanges one message with a peer over UDP, or TCP if the answer is
// truncated.
func (s *Server) ask(ctx context.Context, q *dns.Msg, peer Peer) (*dns.Msg, error) {
	s.sign(q, peer)
	r, _, err := s.client("udp", peer).ExchangeContext(ctx, q.Copy(), peer.Address.String())
	if err == nil && r.Truncated {
		r, _, err = s.client("tcp", peer).ExchangeContext(ctx, q.Copy(), peer.Address.String())
	}
	if peer.Key != "" && r != nil {
		err = signedError(err, r, peer.Key)
	}
	return r, err
}

// signedError says what is wrong with the answer to a signed question, RFC 8945
// section 5.3; nil if nothing is.
func signedError(err error, r *dns.Msg, key string) error {
	tsig := r.IsTsig()
	switch {
	case tsig == nil && err == nil:
		return fmt.Errorf("%s that is not signed by the key %s", dns.RcodeToString[r.Rcode], key)
	case tsig == nil:
	case tsig.Error == dns.RcodeBadSig:
		return fmt.Errorf("it has another secret for the key %s (BADSIG)", key)
	case tsig.Error == dns.RcodeBadKey:
		return fmt.Errorf("it does not have the key %s with this algorithm (BADKEY)", key)
	case tsig.Error == dns.RcodeBadTime:
		return fmt.Errorf("its clock differs by more than %d s (BADTIME)", tsigFudge)
	}
	return err
}

// client asks a peer, from the first address listened on of its family: that is
// the one that the peer knows.
func (s *Server) client(network string, peer Peer) *dns.Client {
	dialer := &net.Dialer{Timeout: exchangeTime}
	for _, a := range s.cfg.Listen {
		if addr := a.Addr(); !addr.IsUnspecified() && addr.Is4() == peer.Address.Addr().Is4() {
			from := netip.AddrPortFrom(addr, 0)
			dialer.LocalAddr = net.UDPAddrFromAddrPort(from)
			if network == "tcp" {
				dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
			}
			break
		}
	}
	c := &dns.Client{Net: network, Timeout: exchangeTime, Dialer: dialer}
	if peer.Key != "" {
		c.TsigProvider = s.ring()
	}
	return c
}
