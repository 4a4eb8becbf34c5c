package http2

import "anyedge/pop/proxy/exchange"

// Inform implements [exchange.Client]. 101 does not exist (RFC 9113, 8.6).
func (t *turn) Inform(status int, fields exchange.Fields) error {
	if status < 102 || status > 199 {
		return nil
	}
	c := t.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := t.readyLocked(); err != nil {
		return err
	}
	c.appendInterimLocked(t.id, status, fields)
	c.flushLocked()
	return t.err
}

func (c *conn) appendInterimLocked(id uint32, status int, fields exchange.Fields) {
	b := blocks.Get()
	defer releaseBlock(b)
	*b = appendFields(appendStatus(*b, status), fields)
	c.appendHeadersLocked(id, *b, false)
}

// Respond implements [exchange.Client].
func (t *turn) Respond(r *exchange.Response) error {
	head := r.Status == 304 || t.x.Request.Method == "HEAD"
	empty := head || r.Status == 204 || r.Body == nil
	if empty && !head && r.Length > 0 {
		return errShort
	}
	block := blocks.Get()
	defer releaseBlock(block)
	*block = appendStatus(*block, r.Status)
	if r.Length >= 0 && r.Status != 204 { // RFC 9110, 8.6
		*block = appendLength(*block, r.Length)
	}
	*block = appendFields(*block, r.Fields)
	if r.Last {
		t.c.drain()
	}
	patience := t.c.front.config.BodyIdle
	if empty {
		var trailers *exchange.Fields
		if !head {
			trailers = r.Trailers
		}
		return t.send(*block, nil, true, trailers, patience)
	}
	first := *block
	// The head does not wait for the body, unless that is short or its beginning
	// is at hand.
	if r.Ready == 0 && (r.Length < 0 || r.Length > pieceSize) {
		if err := t.send(first, nil, false, nil, patience); err != nil {
			return err
		}
		first = nil
	}
	return t.copy(first, r.Body, r.Length, r.Trailers, patience)
}
