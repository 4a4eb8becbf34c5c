package configs

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Error is one problem in a config.
type Error struct {
	// File is the name given to the Load or Parse function; empty for a config
	// built in code.
	File string
	// Line and Column start at 1; a column is one character. Both are 0 for a
	// config built in code. A problem with a missing key stands at the mapping
	// that lacks it.
	Line, Column int
	// Path leads to the value, such as "pools[2].backends[0].address". It is
	// empty when the problem concerns the whole file.
	Path string
	// Message says what is wrong, on one line.
	Message string
}

// Error returns "file:line:column: path: message" without the parts that are
// empty.
func (e Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
		if e.Line > 0 {
			b.WriteString(strconv.Itoa(e.Line) + ":" + strconv.Itoa(e.Column) + ":")
		}
		b.WriteByte(' ')
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are all problems of one config, in the order of the file. It is never
// empty when returned as an error.
type Errors []Error

// Error returns one problem per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems, for [errors.As].
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

// sorted returns e ordered by position; problems at one position keep their
// order.
func (e Errors) sorted() Errors {
	return slices.SortedStableFunc(slices.Values(e), func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
