#!/usr/bin/env bash
# Installs what the tests use from Debian. Without root or apt it changes
# nothing, and the tests that miss something skip and say so.
set -euo pipefail

declare -A package=([dig]=dnsutils [curl]=curl [bird]=bird2)
missing=()
for tool in "${!package[@]}"; do
	PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "not root or not Debian: please install ${missing[*]}" >&2
	exit 0
fi
apt-get update -qq
# The tests start their own daemons: none may be started by the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
