#!/usr/bin/env bash
# Installs the peers and the load generators of the benchmark from Debian.
# Without root or apt it changes nothing and names what is missing.
set -euo pipefail

declare -A package=([haproxy]=haproxy [nginx]=nginx [caddy]=caddy [wrk]=wrk [h2load]=nghttp2-client)
missing=()
for tool in "${!package[@]}"; do
	PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "not root or not Debian: please install ${missing[*]}" >&2
	exit 1
fi
timeout 120 apt-get update -qq
# The benchmark starts its own daemons: none may be started by the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends "${missing[@]}"
