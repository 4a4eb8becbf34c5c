package gslb

import "time"

// Following is how a copy of a zone, or the alias of its apex, is kept up to date.
type Following struct {
	// Of is what: the primaries of a copy, or the target of an alias.
	Of []string `json:"of"`
	// Seen is when one of them last answered; zero if none has.
	Seen time.Time `json:"seen,omitzero"`
	// Error is why the newest attempt failed; empty when it did not.
	Error string `json:"error,omitempty"`
	// Next is when they are asked next, unless a NOTIFY comes before.
	Next time.Time `json:"next,omitzero"`
	// Expires is when the copy is given up if none of them answers until then; zero
	// without a copy.
	Expires time.Time `json:"expires,omitzero"`
	// FileError is why the copy is not kept in its file; empty if it is, or has none.
	FileError string `json:"file_error,omitempty"`
	// Alias is set if it is about an alias, else it is about a copy.
	Alias bool `json:"alias,omitempty"`
}

// followed notes how an attempt went, and when the next one is due. A copy that is
// here lasts until it expires.
func (s *Server) followed(l *link, err error, wait time.Duration, expires time.Time) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &l.following
	f.Error, f.Next, f.Expires = "", now.Add(wait), expires
	if err != nil {
		f.Error = err.Error()
	} else {
		f.Seen = now
	}
}

// followings returns how the links are doing, by zone.
func (s *Server) followings() map[name]*Following {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[name]*Following, len(s.links))
	for n, l := range s.links {
		f := l.following
		if f.Alias = l.zone.Alias != ""; f.Alias {
			f.Of = []string{l.zone.Alias}
		} else {
			for _, p := range l.zone.Primaries {
				f.Of = append(f.Of, p.Address.String())
			}
		}
		all[n] = &f
	}
	return all
}
