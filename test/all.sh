#!/usr/bin/env bash
# Every test there is, in the order in which a failure says most. The caller has
# built bin/anyedge and the tools in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin ANYEDGE_CONSUL=$PWD/.cache/consul ANYEDGE_H2SPEC=$PWD/.cache/h2spec

echo "== format and static analysis"
make --no-print-directory lint

echo "== Go tests, with a real Consul and h2spec, and BIRD, dig and curl where installed"
go test -timeout 10m ./...

echo "== 1500 malformed requests through anyedge, and through HAProxy and nginx where installed"
ANYEDGE_DIFFERENTIAL=quick go test -count 1 -timeout 5m -v -run Nothing ./test/differential

echo "== the DNS beside Knot, NSD, Unbound, delv, and DNSViz and Zonemaster where installed"
ANYEDGE_CONFORMANCE_DNS=installed go test -count 1 -timeout 5m -v ./test/conformancedns

echo "== whole rollovers of DNSSEC keys, while Unbound validates"
ANYEDGE_CONFORMANCE_DNS=installed go test -count 1 -timeout 3m -v -run RolloversByUnbound ./gslb

echo "== an edge in network namespaces, behind FRR and BIRD, where there is root"
ANYEDGE_LAB=1 go test -count 1 -timeout 5m ./test/lab/edge

echo "== the Speaker's neighbors: FRR, BIRD, OpenBGPD and ExaBGP, where there is root"
ANYEDGE_INTEROP=1 go test -count 1 -timeout 2m -v ./test/interop

echo "== a small PoP of two nodes under VRRP, with itself and with keepalived, where there is root"
ANYEDGE_LAB=1 go test -count 1 -timeout 5m ./test/lab/vrrp

echo "== a DNS node that answers in the network driver, where there is root"
ANYEDGE_LAB=1 go test -count 1 -timeout 2m ./test/lab/dns

echo "== the story: a whole edge on this machine, state in memory"
timeout 300 bin/anyedge lab --check

echo "== the story once more, with a real Consul"
timeout 300 bin/anyedge lab --check --consul "$ANYEDGE_CONSUL"

echo "== Terraform"
timeout 300 test/terraform.sh
