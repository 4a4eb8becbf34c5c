package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Usage is what the operating system processes of a proxy have consumed.
type Usage struct {
	// CPU is user plus system time, to 10 ms. Of anyedge it is the worker's.
	CPU time.Duration
	// Agent is the same of anyedge's agent, which takes no part in requests. It
	// is zero for the others.
	Agent time.Duration
	// Resident is resident memory in bytes, of the same processes as CPU.
	Resident int64
	// Processes are the ids of the processes of CPU, sorted.
	Processes []int
}

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on Linux.
const tick = 10 * time.Millisecond

// Usage reads the consumption so far. Consumption can be subtracted only while
// the process ids stay the same.
func (p *Process) Usage() (Usage, error) {
	root := p.child.Pid()
	all, err := family(root)
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for _, s := range all {
		if p.Kind == Anyedge && s.pid == root {
			u.Agent += s.cpu
			continue
		}
		u.CPU += s.cpu
		u.Resident += s.resident
		u.Processes = append(u.Processes, s.pid)
	}
	if len(u.Processes) == 0 {
		return u, fmt.Errorf("%s has no processes", p.Kind)
	}
	slices.Sort(u.Processes)
	return u, nil
}

// CPU returns the user and system time, to 10 ms, of a process and all its
// descendants.
func CPU(pid int) (time.Duration, error) {
	all, err := family(pid)
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("there is no process %d", pid)
	}
	var total time.Duration
	for _, s := range all {
		total += s.cpu
	}
	return total, nil
}

// stat is one process.
type stat struct {
	pid, parent int
	cpu         time.Duration
	resident    int64
}

// family returns a process and all its descendants.
func family(root int) ([]stat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	byParent := make(map[int][]stat)
	var found []stat
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since
		}
		s, err := parseStat(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if s.pid == root {
			found = append(found, s)
		}
		byParent[s.parent] = append(byParent[s.parent], s)
	}
	for i := 0; i < len(found); i++ {
		found = append(found, byParent[found[i].pid]...)
	}
	return found, nil
}

// parseStat reads a line of /proc/PID/stat (proc(5)). The second field, the
// name in parentheses, may itself hold spaces and parentheses.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("no name in it")
	}
	rest := bytes.Fields(line[end+1:]) // rest[0] is field 3
	const parent, user, system, resident = 4, 14, 15, 24
	if len(rest) <= resident-3 {
		return stat{}, errors.New("too few fields")
	}
	var s stat
	var errs [5]error
	number := func(text []byte, err *error) (n int) {
		n, *err = strconv.Atoi(string(text))
		return n
	}
	s.pid = number(bytes.TrimSpace(line[:open]), &errs[0])
	s.parent = number(rest[parent-3], &errs[1])
	s.cpu = tick * time.Duration(number(rest[user-3], &errs[2])+number(rest[system-3], &errs[3]))
	s.resident = int64(number(rest[resident-3], &errs[4])) * int64(os.Getpagesize())
	return s, errors.Join(errs[:]...)
}
