#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each, and fails at the
# first that fails. When it is stopped, so is what it runs.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
targets=$(go test -list '^Fuzz' ./... | awk '
	/^Fuzz/ { names[++n] = $1 }
	/^ok/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }')
log=$(mktemp)
set -m # each run is a process group: the fuzzer and its workers
trap '[ -z "${run:-}" ] || kill -- "-$run" 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
while read -r package target; do
	echo "== $package $target"
	{ go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" </dev/null 2>&1 | tee "$log"; } &
	run=$!
	# That the time was over in the middle of an input is at times told as a failure
	# by the fuzzer; it has no input then, as every true one has.
	if ! wait "$run" && { ! grep -qx ' *context deadline exceeded' "$log" || grep -q 'Failing input\|panic' "$log"; }; then
		exit 1
	fi
	run=
done <<<"$targets"
