# anyedge. "make help" lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin/anyedge
CACHE   := .cache
CONSUL  := $(CACHE)/consul
# Terraform is not in Debian: without it the tests build OpenTofu.
TOFU    := $(if $(shell command -v terraform || command -v tofu),,$(CACHE)/tofu)
FUZZ    ?= 30s
SOAK    ?= 10m
RUNS    ?= 20
SOURCES := $(shell find . -name '*.go' -not -path './.cache/*' -not -path './test/*') go.mod go.sum

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(BIN): $(SOURCES) $(shell find configs internal gslb terraform -type f -not -name '*.go' 2>/dev/null)
	$(GO) build -o $@ .

.PHONY: build
build: $(BIN) ## build bin/anyedge

.PHONY: run
run: $(BIN) ## run a whole edge on this machine: three PoPs, DNS, router, origins
	$(BIN) lab

.PHONY: story
story: $(BIN) ## run the lab's story by itself: every step must hold
	$(BIN) lab --check

.PHONY: run-consul
run-consul: $(BIN) $(CONSUL) ## the edge of "make run" with its state in a real Consul server
	$(BIN) lab --consul $(CONSUL)

.PHONY: lab
lab: deps $(BIN) $(CONSUL) ## an edge in network namespaces: FRR, BIRD, Consul, clients in three places (needs root)
	$(GO) run ./test/lab run

.PHONY: lint
lint: ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: check
check: lint ## gofmt, vet, staticcheck and the fast tests
	$(GO) test -short -timeout 2m ./...

.PHONY: test
test: deps $(BIN) $(CONSUL) $(TOFU) $(CACHE)/h2spec ## every test: real Consul, BIRD, h2spec, HAProxy and nginx, Knot, NSD and Unbound, Terraform and the story
	test/all.sh

.PHONY: race
race: ## the fast tests under the race detector
	$(GO) test -short -race -timeout 10m ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ (default 30s) each
	test/fuzz.sh $(FUZZ)

.PHONY: bench
bench: ## Go benchmarks, six runs each, read by benchstat
	@mkdir -p $(CACHE)
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./... | tee $(CACHE)/bench.txt
	$(GO) tool benchstat $(CACHE)/bench.txt

.PHONY: bench-proxy
bench-proxy: $(BIN) ## anyedge beside HAProxy, nginx and Caddy: CPU per request and ratios (installs them)
	test/deps.sh bench
	$(GO) run ./test/bench --out $(CACHE)/bench-proxy.md

.PHONY: simulate-steering
simulate-steering: ## a day of a synthetic Internet under each way of steering: docs/steering.md and its plot
	$(GO) run ./test/steering --out docs

.PHONY: bench-failover
bench-failover: deps $(BIN) $(CONSUL) ## every failure RUNS times (default 20) behind FRR and BIRD: who notices when, with bars (needs root)
	$(GO) run ./test/lab/failover --runs $(RUNS) --out $(CACHE)/bench-failover.md

.PHONY: bench-vrrp
bench-vrrp: deps $(BIN) $(CONSUL) ## takeover times of two nodes under VRRP, and beside keepalived: median and worst of RUNS (needs root)
	ANYEDGE_LAB=1 $(GO) test -count 1 -timeout 60m -v -run TestTakeover ./test/lab/vrrp -runs $(RUNS)

.PHONY: bench-dns
bench-dns: $(BIN) ## anyedge, with root in the network driver too, beside gdnsd, Knot and NSD: CPU per query and ratios (installs them)
	test/deps.sh bench
	$(GO) run ./test/benchdns --out $(CACHE)/bench-dns.md

.PHONY: bench-rebuild
bench-rebuild: ## 1,000 PoPs, 10,000 names, 1,000,000 client networks: time and memory of a rebuild, latency meanwhile, with bars; with root the image for the driver too
	@mkdir -p $(CACHE)
	$(GO) run ./test/benchrebuild --out $(CACHE)/bench-rebuild.md
	$(GO) test -run '^$$' -bench KernelLarge -benchtime 5x ./gslb

.PHONY: soak
soak: ## a worker under the race detector and random faults for SOAK (default 10m): no wrong byte, no leak
	ANYEDGE_SOAK=$(SOAK) $(GO) test -race -count 1 -timeout 0 -v ./test/soak

.PHONY: conformance
conformance: deps $(CACHE)/h2spec differential ## h2spec, real clients on every front with every back, and "make differential"
	ANYEDGE_H2SPEC=$(CURDIR)/$(CACHE)/h2spec $(GO) test -count 1 -timeout 5m -run H2Spec -v ./pop/proxy/http2
	$(GO) test -count 1 -timeout 10m -v ./test/matrix

.PHONY: interop
interop: deps ## FRR, BIRD, OpenBGPD and ExaBGP beside the Speaker, feature by feature (needs root)
	ANYEDGE_INTEROP=1 $(GO) test -count 1 -timeout 2m -v ./test/interop

.PHONY: conformance-dns
conformance-dns: ## RFC 8906 by dig, client subnets behind Unbound's cache, random zones compared with Knot and NSD, signed ones validated by unbound, delv and DNSViz, whole rollovers by unbound, all that Zonemaster checks (installs them)
	test/deps.sh bench
	ANYEDGE_CONFORMANCE_DNS=1 $(GO) test -count 1 -timeout 5m -v ./test/conformancedns
	ANYEDGE_CONFORMANCE_DNS=1 $(GO) test -count 1 -timeout 3m -v -run RolloversByUnbound ./gslb

.PHONY: differential
differential: $(BIN) ## 6000 malformed requests through anyedge, HAProxy and nginx (installs them)
	test/deps.sh bench
	ANYEDGE_DIFFERENTIAL=1 $(GO) test -count 1 -timeout 10m -v ./test/differential

$(CACHE)/h2spec:
	@mkdir -p $(CACHE)
	GOBIN=$(CURDIR)/$(CACHE) GOFLAGS=-mod=mod $(GO) install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible

.PHONY: vuln
vuln: ## known vulnerabilities in what we call (asks the Go vulnerability database)
	$(GO) tool govulncheck ./...

.PHONY: test-terraform
test-terraform: deps $(BIN) $(TOFU) ## the Terraform module's tests, and two PoPs applied and destroyed on loopback
	test/terraform.sh

.PHONY: deps
deps: ## install what the tests use and Debian has (needs root, or does nothing)
	test/deps.sh

$(CONSUL): test/consul/go.mod test/consul/go.sum
	@mkdir -p $(CACHE)
	cd test/consul && $(GO) build -ldflags "-s -w" -o $(CURDIR)/$@ github.com/hashicorp/consul

$(CACHE)/tofu: test/tofu/go.mod test/tofu/go.sum
	@mkdir -p $(CACHE)
	cd test/tofu && $(GO) build -ldflags "-s -w" -o $(CURDIR)/$@ github.com/opentofu/opentofu/cmd/tofu

.PHONY: consul
consul: $(CONSUL) ## build the Consul server that the tests run against

.PHONY: generate
generate: ## the JSON Schemas from the config structs
	$(GO) generate ./...

.PHONY: xdp-object
xdp-object: ## compile the program that answers DNS queries in the driver (installs clang)
	test/deps.sh xdp
	gslb/xdp/bpf/build.sh gslb/xdp/bpf/dns.o

.PHONY: clean
clean: ## remove what the targets built
	rm -rf bin $(CACHE) .lab
