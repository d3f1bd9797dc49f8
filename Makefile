# SPDX-License-Identifier: Apache-2.0
# `make help` lists what there is. Each target sets up what it needs.
TAG ?= latest
HUB ?= ghcr.io/kmesh-net
PYTEST_ARGS ?=
KERNELS ?=
ONLY ?=
HOSTS ?=
OUT ?=
ARCHIVE ?=
OUTPUT ?= table
DEMO ?= auto
PRESSURE ?= 1000x100
BIN := .venv/bin
AS_ROOT := ci/setup/as-root

# BASE_GENERIC=..., BASE_ENHANCED=..., BASE_COMPILE=... override the pinned bases.
BASES := $(if $(BASE_GENERIC),--base-generic $(BASE_GENERIC)) \
	 $(if $(BASE_ENHANCED),--base-enhanced $(BASE_ENHANCED)) \
	 $(if $(BASE_COMPILE),--base-compile $(BASE_COMPILE)) \
	 $(if $(MIRROR),--mirror $(MIRROR)) \
	 $(if $(BASE_REPO),--base-repo $(BASE_REPO)) \
	 $(if $(BASE_KEY),--base-key $(BASE_KEY)) \
	 $(if $(BASE_ARCHIVE),--base-archive $(BASE_ARCHIVE))

.DEFAULT_GOAL := help
.PHONY: help setup setup-test bpf gate docker test matrix hosts image-on kernels-doc bench pressure lint format generate lock demo cluster cluster-down test-cluster-v2 manifests clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf "  docker takes TAG= HUB= BASE_GENERIC= BASE_ENHANCED= BASE_COMPILE= BASE_REPO=\n         BASE_KEY= BASE_ARCHIVE= MIRROR= OUTPUT=json\n"

setup:
	@ci/setup/setup build

setup-test:
	@ci/setup/setup build engine test cluster

bpf: setup ## compile the BPF objects into build/bpf, native programs into build/bin
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin

gate: setup-test ## compile the gate of the enhanced path into build/gate
	@$(BIN)/python -m runtime.compile.gate build/gate/kmesh-gate

docker: ## build the three images, and probe this host with the generic one
	@ci/setup/setup build engine
	@$(AS_ROOT) $(BIN)/kmesh-build images --tag $(TAG) --hub $(HUB) $(BASES) --output $(OUTPUT)

test: setup-test ## run every test that this machine can run (PYTEST_ARGS= for pytest)
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile --unshipped bpf build/all
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(BIN)/python -m ci.cluster prepare
	@$(AS_ROOT) $(BIN)/pytest $(PYTEST_ARGS)

matrix: setup-test ## boot every listed kernel and try everything on it (KERNELS="bookworm 6.12" ONLY=failed)
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(AS_ROOT) $(BIN)/python -m ci.matrix --write $(if $(ONLY),--only $(ONLY)) $(KERNELS)

hosts: setup-test ## the compile image on roots of other distributions (HOSTS="bullseye rpm", OUT=dir keeps all)
	@$(AS_ROOT) $(BIN)/python -m ci.hosts $(if $(OUT),--out $(OUT)) $(HOSTS)

image-on: setup-test ## run an image archive on a booted kernel (ARCHIVE=out/kmesh-….tar KERNELS=5.10)
	@$(AS_ROOT) $(BIN)/python -m ci.matrix.image $(ARCHIVE) $(KERNELS)

kernels-doc: setup ## write docs/kernels.md again from docs/kernels.json
	@$(BIN)/python -m ci.matrix.results

lint: setup ## ruff, mypy strict, import-linter, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy builder runtime ci tests
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'bpf/*.[ch]' 'runtime/*.[ch]' 'tests/*.c')

format: setup ## let ruff and clang-format lay the code out
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .
	@$(BIN)/clang-format -i $$(git ls-files 'bpf/*.[ch]' 'runtime/*.[ch]' 'tests/*.c')

generate: bpf ## write again what is generated: map layouts, protobuf modules
	@$(BIN)/python -m builder.layout
	@$(BIN)/python -m builder.responses
	@$(BIN)/python -m builder.protos
	@$(BIN)/python -m builder.envoy_protos

lock: ## resolve the Python dependencies again, with hashes (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-header --no-emit-index-url --no-emit-find-links -q -o requirements/runtime.lock
	uv pip compile pyproject.toml --extra build --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --no-emit-find-links -q \
		-c requirements/runtime.lock -o requirements/dev.lock

demo: setup-test ## one connection, each request routed by the kernel (DEMO=compat: services, policies, a killed daemon)
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(AS_ROOT) $(BIN)/python -m ci.demo --path $(DEMO) --output $(if $(filter json,$(OUTPUT)),json,text)

cluster: setup-test ## a real one-node Kubernetes with Kmesh and a sample on it (CGROUPS=v2; cluster-down ends it)
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(AS_ROOT) $(BIN)/python -m ci.cluster up $(CGROUPS)

test-cluster-v2: setup-test ## the cluster's tests on a node with version 2 control groups alone (some minutes)
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(BIN)/python -m ci.cluster prepare
	@$(AS_ROOT) env KMESH_TEST_CGROUPS=v2 $(BIN)/python -m pytest -q tests/cluster

cluster-down: setup ## end that cluster and remove everything of it
	@$(AS_ROOT) $(BIN)/python -m ci.cluster down

manifests: setup ## write helm/manifests/ again, from the chart
	@$(BIN)/python -m ci.cluster.manifests

bench: setup-test ## measure: prober, pipeline, initial sync, new connections, keep-alive (FULL=1: every size of HTTP requests)
	@ci/setup/setup build engine test bench
	@$(BIN)/python -m runtime.compile bpf build/bpf
	@$(BIN)/python -m runtime.compile.native build/bin
	@$(AS_ROOT) $(BIN)/python -m ci.bench --output $(OUTPUT) $(if $(FULL),--full)

pressure: setup-test ## 1,000 clients that do all that clients do, while endpoints, daemon and gate come and go
	@$(AS_ROOT) env KMESH_PRESSURE=$(PRESSURE) KMESH_PRESSURE_FIGURES=$(CURDIR)/build/pressure.json \
		$(BIN)/python -m pytest -q tests/dataplane/test_enhanced_pressure.py -s

clean: ## remove what was built here (not the caches outside the checkout)
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
