package configs

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// show returns s as it is when it is a plain word, else as quote does.
func show(s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '_' || r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	if plain {
		return shorten(s)
	}
	return quote(s)
}

// quote returns s in quotes, cut to a length that fits on a line.
func quote(s string) string { return strconv.Quote(shorten(s)) }

func shorten(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// nearest returns the word that key is most likely a slip for, or "". It does
// not look where that would take long.
func nearest(key string, words []string) string {
	best, limit := "", max(1, len(key)/3)
	if len(key) > 64 || len(words) > 1000 {
		return ""
	}
	for _, w := range words {
		if n := distance(key, w); n <= limit {
			best, limit = w, n-1
		}
	}
	return best
}

// distance counts the insertions, deletions, substitutions and swaps of
// neighbors that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// suggest returns "; did you mean …?" with the word that is most likely meant,
// or "".
func suggest(word string, words []string) string {
	if best := nearest(word, words); best != "" {
		return "; did you mean " + show(best) + "?"
	}
	return ""
}

// either returns words as "a, b or c".
func either(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
