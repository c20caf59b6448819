# make up    build, fetch the default models, start, print a sign-in link
# make test  every test: Rust, UI, formulas beside Python's, unmodified clients, real browser
# make help  the rest
#
# Every target can be run again at any time and installs what it needs, or says
# in one line what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One target directory for every checkout of this project on a machine, so that a fresh clone does
# not compile the dependencies again. Plain cargo commands find it through the link.
SHARED_TARGET ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/meguri/target
DATA_DIR ?= meguri-data
LISTEN ?= 127.0.0.1:7800

BIN := target/debug/meguri
export MEGURI_BIN := $(CURDIR)/$(BIN)
export MEGURI_MODELS := $(CURDIR)/target/models-data
NEXTEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo yes)

.PHONY: help up test check ui bench build test-build test-rust test-ui test-oracle test-compat test-e2e test-models guard-models

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: build ## build, fetch the default models, start, print a sign-in link
	target/release/meguri up --data-dir $(DATA_DIR) --listen $(LISTEN)

build: target ui ## the release binary, target/release/meguri
	@scripts/need rust
	cargo build --release --locked -p server

test: test-ui test-rust test-oracle test-compat test-e2e ## every test
	@echo "make test: all passed"

check: target ui ## formatting, lints and types, without running anything
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd ui && npx --no-install tsc --noEmit

ui: target ui/node_modules/.installed ## scripts and styles, into ui/dist
	@cd ui && node build.mjs

bench: build test-models ## compare with peers, print a table (see docs/benchmarks.md)
	bench/run

guard-models: target ## gather texts, train the guard classifiers, print figures and digests
	@scripts/need rust
	scripts/guard-data
	cargo run --release --locked -p guard --example train -- target/guard-data/texts.jsonl crates/guard/models

target:
	@mkdir -p $(SHARED_TARGET)
	@ln -sfn $(SHARED_TARGET) target

ui/node_modules/.installed: ui/package-lock.json
	@scripts/need node
	cd ui && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

test-build: target ui
	@scripts/need rust postgres
	$(if $(NEXTEST),cargo nextest run,cargo test) --workspace --locked --no-run

test-models: test-build
	@scripts/test-models

test-rust: test-build test-models
	@scripts/eval-oracle
	MEGURI_EVAL_ORACLE=1 $(if $(NEXTEST),cargo nextest run --no-fail-fast,cargo test --no-fail-fast) --workspace --locked

test-ui: ui
	cd ui && npx --no-install tsc --noEmit && npm test

test-oracle: test-build
	oracle/run

test-compat: test-build test-models
	compat/run

test-e2e: test-build test-models
	e2e/run
