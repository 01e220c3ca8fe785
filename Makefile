# SPDX-License-Identifier: Apache-2.0

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
GO ?= go
GOLANGCI_LINT = bin/golangci-lint
FOR ?= 35m
SEED ?= 1
FAULTS ?= 1
WRITES ?= 3
HOSTS ?= 5000

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

##@ Try it

.PHONY: run
run: not-ready bin/kubectl ## Run everything on a local control plane, until Ctrl-C.
	@$(GO) build -o bin/run ./hack/run
	@exec bin/run

.PHONY: demo
demo: bin/kubectl ## Walk through every host status, with real output; with libvirt's domains too, where this machine has what that needs.
	@$(GO) build -o bin/run ./hack/run
	@$(GO) build -o bin/demo-libvirt ./hack/demo-libvirt
	@bin/run --dir=.demo --lease-duration=4s --story
	@exec bin/demo-libvirt --where-possible --changes=0

.PHONY: demo-libvirt
demo-libvirt: ## Walk through what happens to real libvirt domains (needs root; installs libvirt and QEMU if missing).
	@hack/ensure-packages.sh domains
	@$(GO) build -o bin/demo-libvirt ./hack/demo-libvirt
	@exec bin/demo-libvirt

# A run that was killed leaves .run/ready behind, for which scripts may wait.
.PHONY: not-ready
not-ready:
	@if [ -e .run/.lock ]; then flock -n .run/.lock rm -f .run/ready || true; fi

.PHONY: bin/kubectl
bin/kubectl: # Builds the control plane, unless this machine has it.
	@mkdir -p bin
	@$(GO) run ./hack/ensure-controlplane bin/kubectl

##@ Build and check

.PHONY: build
build: ## Build the binaries into bin/.
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/...

.PHONY: image
image: ## Build the container images into bin/images (IMAGE_REGISTRY=... IMAGE_TAG=... PLATFORMS=...; PUSH=yes pushes them).
	@hack/image.sh $(if $(PUSH),--push)

.PHONY: chart
chart: bin/helm ## Check the Helm chart, and render it into bin/hoststatus.yaml.
	bin/helm lint --strict --quiet --set image.registry=registry.invalid/hoststatus charts/hoststatus
	bin/helm template hoststatus charts/hoststatus --namespace hoststatus-system --set image.registry=registry.invalid/hoststatus >bin/hoststatus.yaml

.PHONY: test
test: ## Run the whole test suite, or some of it (SUITES="unit leaks").
	@$(GO) run ./hack/suites $(SUITES)
	@$(if $(SUITES),,$(MAKE) --no-print-directory bench-short)

.PHONY: test-unit
test-unit: ## Run the tests that need no control plane.
	@$(GO) run ./hack/suites unit serving

.PHONY: test-e2e
test-e2e: ## Run all tests that need the local control plane.
	@$(GO) run ./hack/suites end-to-end

.PHONY: test-cluster
test-cluster: ## Install, upgrade, break and uninstall on a real cluster of two nodes (needs root; installs containerd if missing).
	@hack/ensure-packages.sh nodes
	$(GO) test ./test/cluster -count=1 -timeout 45m -v -cluster.all

.PHONY: model
model: ## Check the protocols of silence and of the join in every order of events (FAULTS=1 WRITES=3; installs Spin as root).
	@hack/ensure-packages.sh model
	$(GO) test ./test/model -count=1 -timeout 0 -v -faults=$(FAULTS) -writes=$(WRITES)

.PHONY: page-scale
page-scale: ## Measure the page of many hosts on the real API server (HOSTS=5000; installs Chromium as root).
	@hack/ensure-packages.sh browser
	$(GO) test ./test/page -count=1 -timeout 30m -v -run TestManyRealHosts -args -hosts=$(HOSTS)

.PHONY: chaos
chaos: ## Inject faults for half an hour (FOR=35m SEED=1) and check every reported status.
	$(GO) test ./test/chaos -count=1 -timeout 0 -v -chaos.for=$(FOR) -chaos.seed=$(SEED)

.PHONY: bench
bench: ## Measure everything, for most of an hour, into docs/design/performance.
	$(GO) test -run '^$$' -bench . ./internal/...
	$(GO) run ./hack/ensure-controlplane
	$(GO) build -o bin/bench ./test/bench
	bin/bench -out docs/design/performance $(BENCH)
	bin/bench -page docs/design/performance.md
	$(MAKE) bench-pictures

.PHONY: bench-short
bench-short: ## Measure, in two minutes, the ratios that a change must not worsen.
	@$(GO) run ./hack/ensure-controlplane
	@$(GO) build -o bin/bench ./test/bench
	@bin/bench -short

.PHONY: bench-pictures
bench-pictures: ## Redraw the pictures of docs/design/performance from the last make bench.
	cd hack/plot && $(GO) run . ../../docs/design/performance

.PHONY: generate
generate: ## Write the files that are generated from the code.
	hack/generate.sh

.PHONY: verify
verify: $(GOLANGCI_LINT) bin/helm ## Check format, vet, lint, vulnerabilities, generated files and modules.
	hack/verify.sh

$(GOLANGCI_LINT): hack/tools/go.mod hack/tools/golangci-lint/main.go
	@mkdir -p bin
	cd hack/tools && $(GO) build -o ../../$@ ./golangci-lint

bin/helm bin/kustomize &: hack/packaging/go.mod
	@mkdir -p bin
	cd hack/packaging && CGO_ENABLED=0 $(GO) build -o ../../bin/ helm.sh/helm/v4/cmd/helm sigs.k8s.io/kustomize/kustomize/v5
	@touch bin/helm bin/kustomize
