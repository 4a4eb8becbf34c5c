package ops

import (
	"fmt"
	"net/http"
)

// An Error is an error with an HTTP status. A handler returns one to say whose
// fault it was; the client gets it back from a call that was refused.
type Error struct {
	// Status is the HTTP status, 400 to 599.
	Status int
	err    error
}

// Error returns the message, which the caller of the API reads.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the error that the message was made of.
func (e *Error) Unwrap() error { return e.err }

// BadRequest says that the request makes no sense (400). The arguments are those
// of fmt.Errorf, here and below.
func BadRequest(format string, args ...any) error {
	return newError(http.StatusBadRequest, format, args...)
}

// NotFound says that what the request names does not exist (404).
func NotFound(format string, args ...any) error {
	return newError(http.StatusNotFound, format, args...)
}

// Conflict says that the request does not fit the present state (409).
func Conflict(format string, args ...any) error {
	return newError(http.StatusConflict, format, args...)
}

// Unavailable says that what is needed to answer does not work now (503).
func Unavailable(format string, args ...any) error {
	return newError(http.StatusServiceUnavailable, format, args...)
}

func newError(status int, format string, args ...any) *Error {
	return &Error{status, fmt.Errorf(format, args...)}
}
