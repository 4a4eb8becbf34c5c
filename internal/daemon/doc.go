// Package daemon is what every long-running command of anyedge shares: signals,
// a group of tasks that live and end together, the log, word to the service
// manager, and child processes. It runs on Linux.
//
// # Concurrency
//
// Values of this package may be used by several goroutines at once, except that
// a [Group] is filled before it runs. Nothing runs in the background but what
// the caller sees: [Terminate] until its stop function is called, and one
// goroutine, bound to a thread, per [Child] until that child has ended.
package daemon
