# sealfleet: everything a newcomer runs. `make` alone lists the targets.
# Tools are built from source at pinned versions into .tools/bin; nothing else is needed but Go.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TOOLS := $(CURDIR)/.tools/bin
GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION := v1.13.0
NATSCLI_VERSION := v0.5.1
PROMTOOL_VERSION := v0.316.0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X sealfleet/internal/version.Version=$(VERSION)

# The packages with assembly, each with a pure-Go twin.
ASSEMBLY := ./internal/sealcore/poseidon/... ./internal/sealcore/sdr/... ./internal/sealcore/groth16/msm/... ./internal/sealcore/groth16/ntt/...

# Where development parameters live; made once, then shared by demo and tests.
PARAMS_DIR ?= $(CURDIR)/.cache/proof-parameters

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/dispatcher, bin/consumer and bin/demo
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# FEATURES=cuda or FEATURES=opencl builds the GPU code of the reference in.
.PHONY: engine-filecoin
engine-filecoin: ## build bin/engine-filecoin, the reference implementation as an engine (needs Rust; FEATURES=cuda for GPUs; docs/engines.md)
	@command -v cargo >/dev/null || { echo "no cargo: install Rust first (https://rustup.rs)"; exit 1; }
	cd engines/filecoin-proofs && RUSTFLAGS="$${RUSTFLAGS--C target-cpu=native}" cargo build --release --locked $(if $(FEATURES),--features $(FEATURES))
	@mkdir -p bin
	cp "$${CARGO_TARGET_DIR:-engines/filecoin-proofs/target}/release/sealfleet-engine-filecoin-proofs" bin/engine-filecoin

.PHONY: demo
demo: build ## seal a real 2 KiB sector from p1 to p6 on this machine, with progress on the screen
	FIL_PROOFS_PARAMETER_CACHE=$(PARAMS_DIR) ./bin/demo

.PHONY: params
params: build ## make development parameters for 2 KiB sectors once (about a minute)
	FIL_PROOFS_PARAMETER_CACHE=$(PARAMS_DIR) ./bin/consumer params --proof-type 5

.PHONY: docs
docs: ## write what is made from code anew: the tables of settings and metrics, the alert rules
	UPDATE_DOCS=1 go test -p 1 -count=1 -run "TestReadmeHasTheSettings|TestMetrics|TestRulesOfPrometheus" ./cmd/... ./internal/alerts ./deployments

.PHONY: test
test: params $(TOOLS)/gotestsum $(TOOLS)/nats ## run all tests (a real NATS server, real child processes, real sectors, a real SNARK)
	NATS_CLI=$(TOOLS)/nats SEALFLEET_PARAMS_DIR=$(PARAMS_DIR) $(TOOLS)/gotestsum --format pkgname -- -timeout 30m ./...
	@echo "left out: the web page in a real browser (make test-web, needs chromium)"

.PHONY: test-web
test-web: $(TOOLS)/gotestsum ## run the web page in a real Chromium (CHROMIUM=path; SCREENSHOTS=directory keeps pictures)
	@test -n "$${CHROMIUM:-$$(command -v chromium chromium-browser google-chrome | head -1)}" || { echo "no browser: apt-get install chromium, or name one in CHROMIUM"; exit 1; }
	go vet -tags browser ./internal/web/page
	$(TOOLS)/gotestsum --format testname -- -tags browser -timeout 15m ./internal/web/page

.PHONY: bench-web
bench-web: ## measure the page: first paint and events, SECTORS=100000 of them known (minutes)
	SEALFLEET_BENCH_SECTORS=$(or $(SECTORS),100000) go test -tags browser -count=1 -v -timeout 30m -run TestMeasure ./internal/web/page

.PHONY: test-race
test-race: $(TOOLS)/gotestsum $(TOOLS)/nats ## run the tests of the fleet's rooms under the race detector
	NATS_CLI=$(TOOLS)/nats $(TOOLS)/gotestsum --format pkgname -- -race -timeout 30m \
		./internal/phases/... ./internal/bus/... ./internal/throttle/... ./internal/chain/... ./internal/web/... ./internal/settings/... ./internal/alerts/... ./internal/trace/...

.PHONY: test-race-all
test-race-all: $(TOOLS)/gotestsum $(TOOLS)/nats ## the same for all of the fleet's rooms: ten minutes
	NATS_CLI=$(TOOLS)/nats $(TOOLS)/gotestsum --format pkgname -- -race -timeout 30m \
		./internal/phases/... ./internal/bus/... ./internal/dispatch/... ./internal/consume/... ./internal/engine/... \
		./internal/throttle/... ./internal/storage/... ./internal/chain/... ./internal/web/... ./internal/host/...

.PHONY: test-purego
test-purego: $(TOOLS)/gotestsum ## run what has assembly without it, and with the newest CPU features masked
	$(TOOLS)/gotestsum --format pkgname -- -tags purego $(ASSEMBLY)
	GODEBUG=cpu.avx512ifma=off,cpu.adx=off,cpu.ssse3=off $(TOOLS)/gotestsum --format pkgname -- -count=1 $(ASSEMBLY)

.PHONY: check
check: $(TOOLS)/golangci-lint ## format, vet, lint, tidy modules, and the docs that are made from code
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on these files"; exit 1; }
	go vet ./...
	$(TOOLS)/golangci-lint run ./...
	go mod tidy -diff

.PHONY: check-rules
check-rules: $(TOOLS)/promtool ## have promtool judge the alert rules, and every metric that a rule or dashboard names exist
	cd deployments/prometheus && $(TOOLS)/promtool check rules --lint all --lint-fatal sealfleet.rules.yaml && $(TOOLS)/promtool test rules sealfleet.rules.test.yaml
	$(TOOLS)/promtool check config --syntax-only deployments/prometheus/prometheus.yaml
	cd deployments/check && go vet ./... && go test ./...

.PHONY: bench-reference
bench-reference: ## build the reference implementation from its published crates (needs cargo; about 7 minutes)
	cd bench/reference && CARGO_TARGET_DIR=$(CURDIR)/.cache/reference RUSTFLAGS="-C target-cpu=native" cargo build --release --locked

.PHONY: bench
bench: build bench-reference ## time both on this machine and print the ratios (BENCH="-size 512MiB -warm -phases p1,p2,p3")
	go run ./bench/ratios $(BENCH)

.PHONY: bench-copy
bench-copy: ## measure p5: its limits, alone and shared by four hosts, and its rate beside cp's (COPY="-dir /sealer -node /mnt/node1")
	go run ./bench/copy $(COPY)
	go test ./internal/storage -run xxx -bench CopyAgainstCp -benchtime 5x

.PHONY: bench-bus
bench-bus: ## measure the bus: phases per second, hand-off
	go run ./bench/bus

.PHONY: chaos
chaos: ## seal 1,000 sectors while 500 faults strike (CHAOS="-seed 7 -servers 3"; minutes; prints its seed)
	go run ./bench/chaos $(CHAOS)

MODEL_RUNS ?= 1000000
.PHONY: model
model: ## check the fold and the dispatchers' rule over a million interleavings in memory (MODEL_RUNS=4000000; minutes)
	SEALFLEET_MODEL_RUNS=$(MODEL_RUNS) go test ./internal/phases -run TestManyInterleavings -count=1 -v -timeout 2h

.PHONY: bench-api
bench-api: ## measure the HTTP API with 100,000 sectors known
	go run ./bench/api

.PHONY: bench-scale
bench-scale: ## measure a dispatcher with 100,000 sectors known and 10,000 requests of hosts waiting
	go run ./bench/scale

.PHONY: fuzz
fuzz: ## run each fuzz target for 20 seconds
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime 20s $$pkg || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built and cached here
	rm -rf bin .tools .cache

.PHONY: tools
tools: $(TOOLS)/golangci-lint $(TOOLS)/gotestsum $(TOOLS)/promtool $(TOOLS)/nats ## build the pinned tools that tests and checks need

$(TOOLS)/golangci-lint: ; GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
$(TOOLS)/gotestsum: ; GOBIN=$(TOOLS) go install gotest.tools/gotestsum@$(GOTESTSUM_VERSION)
# Without the discovery of targets in clouds, which drags half of them in.
$(TOOLS)/promtool: ; GOBIN=$(TOOLS) go install -tags remove_all_sd github.com/prometheus/prometheus/cmd/promtool@$(PROMTOOL_VERSION)
$(TOOLS)/nats: ; GOBIN=$(TOOLS) go install github.com/nats-io/natscli/nats@$(NATSCLI_VERSION)
