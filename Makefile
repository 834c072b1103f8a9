# `make` lists the targets. A machine needs Rust and a C compiler; `make test` installs what the tests need beyond them.

CARGO ?= cargo

.PHONY: help demo build test lint fmt doc audit fuzz soak bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  \1 	/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## a gateway in front of sample backends: watch an ejection and a recovery
	$(CARGO) run --release -- demo

build: ## the release binary
	$(CARGO) build --release --locked

test: ## every test; installs what they need where it is missing
	tests/setup
	tests/run

lint: ## rustfmt, clippy
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

fmt: ## format the code
	$(CARGO) fmt

doc: ## the crate's documentation, with its lints
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

audit: ## licences, bans and sources of dependencies, and known vulnerabilities
	tests/audit

fuzz: ## every fuzz target for a minute
	tests/setup
	tests/fuzz/run 60

soak: ## the long drills, in release, with figures: about 10 minutes
	tests/setup
	tests/run --long --release

bench: ## micro benchmarks and the side-by-side run against peers
	$(CARGO) bench --locked --bench micro
	benches/run
