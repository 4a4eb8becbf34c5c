package gslb

import "slices"

// presignedDenial adds the records of the zone's own chain that say that there is
// no set of the type asked for, or no such name (RFC 4035 section 3.1.3).
func (s *signing) presignedDenial() {
	p, m := s.z.presigned, s.m
	if p.nsec3 != nil {
		s.nsec3Denial()
		return
	}
	s.prove(s.n) // by what is at the name, or around it
	if m.encloser == "" {
		return
	}
	if wildcard := m.encloser.wildcard(); wildcard != "" {
		s.prove(wildcard)
	}
}

// nsec3Denial is presignedDenial by RFC 5155 sections 7.2.2 to 7.2.5.
func (s *signing) nsec3Denial() {
	switch m := s.m; {
	case m.encloser == "":
		s.present(s.n)
	case m.outcome == noSuchName:
		if wildcard := s.enclosed(m.encloser).wildcard(); wildcard != "" {
			s.prove(wildcard)
		}
	default:
		s.enclosed(m.encloser)
		s.prove(m.owner)
	}
}

// present proves what there is at a name that exists. An opt-out may leave out
// names that have nothing but delegations to unsigned zones, and those between
// them and the rest (RFC 5155 sections 7.2.4 and 7.2.7).
func (s *signing) present(n name) {
	if _, matches := s.z.presigned.nearest(n); matches || s.z.presigned.nsec3 == nil || n == s.z.name {
		s.prove(n)
		return
	}
	s.enclosed(n.parent())
}

// enclosed proves which name is the closest encloser, as far as that can be
// proved, and that there is none closer (RFC 5155 section 7.2.1). It begins at the
// encloser that there is and returns the one proved.
func (s *signing) enclosed(encloser name) name {
	for encloser != s.z.name {
		if _, matches := s.z.presigned.nearest(encloser); matches {
			break
		}
		encloser = encloser.parent()
	}
	s.prove(encloser)
	s.prove(s.n.below(encloser)[0])
	return encloser
}

// prove adds the record of the chain that matches or covers a name, if it is not
// there already.
func (s *signing) prove(n name) {
	set, _ := s.z.presigned.nearest(n)
	if set != nil && !slices.Contains(s.r.authority, set[0]) {
		s.put(set...)
	}
}
