package gslb

// Names beside others in the canonical order of RFC 4034 section 6.1, as RFC 4471
// finds them.

// Bounds of names, RFC 1035 section 3.1, in octets of their wire form.
const (
	maxName  = 255
	maxLabel = 63
)

// sortKey returns a string that sorts as the name does: its labels from the last to
// the first, each with an octet behind it that is less than any in a label.
func (n name) sortKey() string {
	key := make([]byte, 0, len(n)+8)
	for _, m := range n.below("\x00") {
		for _, c := range []byte(m[1 : 1+m[0]]) {
			if c < 2 {
				key, c = append(key, 1), c+1
			}
			key = append(key, c)
		}
		key = append(key, 0)
	}
	return string(key)
}

// labelled returns the name of a label below a parent.
func labelled(label string, parent name) name {
	return name(string([]byte{byte(len(label))})+label) + parent
}

// padded makes the first label as long as there is room for, with the octet that
// comes last.
func (n name) padded() name {
	label := []byte(n[1 : 1+n[0]])
	for room := maxName - len(n); room > 0 && len(label) < maxLabel; room-- {
		label = append(label, 0xff)
	}
	return labelled(string(label), n.parent())
}

// successor returns the name that comes next after n, if that could have names
// below it: else the next that is not below it.
func (n name) successor(apex name) name {
	if len(n)+2 <= maxName {
		return labelled("\x00", n)
	}
	return n.nextSibling(apex)
}

// nextSibling returns the name that comes next after n and all names below it;
// the apex after the last one.
func (n name) nextSibling(apex name) name {
	for len(n) > len(apex) {
		label, parent := []byte(n[1:1+n[0]]), n.parent()
		if len(label) < maxLabel && len(n) < maxName {
			return labelled(string(label)+"\x00", parent)
		}
		for len(label) > 0 && label[len(label)-1] == 0xff {
			label = label[:len(label)-1]
		}
		if len(label) == 0 {
			n = parent
			continue
		}
		last := &label[len(label)-1]
		if *last++; *last == 'A' {
			*last = 'Z' + 1 // capitals count as small letters
		}
		return labelled(string(label), parent)
	}
	return apex
}
