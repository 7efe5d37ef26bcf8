# The doors to this repository. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BINARIES := -p sconce -p sconce-control-plane -p sconce-sidecar -p sconce-demo
.PHONY: help tools libtorch build demo test test-cluster cluster-start cluster-stop bench clients lint

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

tools: ## Check that what is needed is here, and say how to get what is not
	@scripts/tools.sh

libtorch: tools ## Obtain libtorch, once (or use the one LIBTORCH names)
	@LIBTORCH="$$(python3 scripts/libtorch.py)"; mkdir -p .cargo; \
	config="$$(printf '# Written by make libtorch, so that plain cargo finds libtorch too.\n[env]\nLIBTORCH = { value = "%s", force = true }\n' "$$LIBTORCH")"; \
	if [ "$$(cat .cargo/config.toml 2>/dev/null)" != "$$config" ]; then printf '%s\n' "$$config" > .cargo/config.toml; fi

build: libtorch ## Build everything for use
	@cargo build --release --locked $(BINARIES)

demo: build ## Push, swap and split a model under traffic, on real images
	@target/release/sconce-demo

clients: tools ## Install the protocol's Python clients, for the tests
	@scripts/clients.sh

test: libtorch clients ## Run every test that needs no cluster
	@# Most tests wait more than they compute. None is in the documentation, where rustdoc would look for them.
	@export SCONCE_CLIENTS="$$(scripts/clients.sh)" RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$((3 * $$(nproc)))}"; \
	cargo test --workspace --locked --tests

test-cluster: build ## Run the scenarios on a real Kubernetes with Istio (KUBECONFIG, else one started here, as root)
	@cargo build --release --locked $(BINARIES) -p sconce-cluster-tests
	@tests/cluster/run.sh

cluster-start: ## Start a Kubernetes with Istio on this machine, as root, and print its KUBECONFIG
	@tests/cluster/start.sh

cluster-stop: ## Stop it, and take back what it did to this machine
	@tests/cluster/stop.sh

bench: libtorch ## Compare serving with calling libtorch directly, as ratios from one run
	@cargo bench --locked -p sconce-tests --bench serving

lint: libtorch ## Format and clippy, warnings denied
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
