#!/usr/bin/env bash
# Installs what the tests use from Debian; with "bench", what the benchmarks use
# too; with "xdp", only what compiles the program of gslb/xdp. Without root or apt
# it changes nothing: tests that miss something skip and say so, benchmarks do not
# begin.
set -euo pipefail

declare -A package=(
	[dig]=dnsutils [curl]=curl [bird]=bird2 [vtysh]=frr [bgpctl]=openbgpd [exabgp]=exabgp [keepalived]=keepalived
	[nghttp]=nghttp2-client [nghttpd]=nghttp2-server [nginx]=nginx [haproxy]=haproxy
	[knotd]=knot [nsd]=nsd [unbound]=unbound [delv]=bind9-dnsutils
	[ip]=iproute2 [ethtool]=ethtool [nft]=nftables [tcpdump]=tcpdump [ping]=iputils-ping
)
declare -A compile=([clang]=clang [llvm-strip]=llvm [/usr/include/bpf/bpf_helpers.h]=libbpf-dev)
[ "${1:-}" = bench ] && package+=(
	[caddy]=caddy [wrk]=wrk [dnsperf]=dnsperf [gdnsd]=gdnsd [dnsviz]=dnsviz [zonemaster-cli]=zonemaster-cli
)
[ "${1:-}" = xdp ] && package=()
for tool in "${!compile[@]}"; do
	package[$tool]=${compile[$tool]}
done
missing=()
for tool in "${!package[@]}"; do
	[ -e "$tool" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "not root or not Debian: please install ${missing[*]}" >&2
	[ -z "${1:-}" ]
	exit
fi
timeout 120 apt-get update -qq
# The tests start their own daemons: none may be started by the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends "${missing[@]}"
