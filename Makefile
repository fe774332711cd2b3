# The front door. `make help` lists what there is.
CARGO  ?= cargo
STAGE  := tests/stage.sh
PURE   := edge-common edge-access edge-webconf edge-av
STAY   ?=
DIR    ?= ../shared/torture
DEMO   := $(if $(STAY),--stay,)
BUILT  := $(or $(CARGO_TARGET_DIR),target)
ROUNDS ?= 3
QUICK  ?=

.PHONY: help demo test torture lint unit lab instructions pure deny bins bench-access bench-webconf setup clean fuzz fuzz-proof

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup bins ## the whole edge with real clients, in network namespaces; STAY=1 leaves it running
	target/release/edge-lab run $(DEMO)

test: setup lint unit lab instructions ## everything that CI runs

torture: ## the torture messages of RFC 4475 and RFC 5118 in DIR, which are not part of the project
	$(STAGE) torture $(CARGO) run -q --locked -p edge-tests --bin edge-torture -- "$(DIR)"

lint: ## formatting, clippy, purity of the pure modules, dependencies
	$(STAGE) format  $(CARGO) fmt --all --check
	$(STAGE) clippy  $(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(MAKE) --no-print-directory pure deny

pure: ## the pure halves build with no tokio in sight
	$(STAGE) pure    sh -ec 'for crate in $(PURE); do $(CARGO) check -q --locked -p $$crate --no-default-features; done'

deny: ## bans, licences and sources of every dependency
	$(STAGE) deny    tests/deny.sh

unit: ## unit, property, golden and simulated-world tests
	$(STAGE) unit    $(CARGO) test --workspace --locked --no-fail-fast

bins: ## the release binaries
	$(STAGE) build   $(CARGO) build --release --workspace --bins --locked

lab: bins ## the real binaries against other people's software
	$(STAGE) lab     $(CARGO) test --locked -p edge-tests --test lab -- --ignored --nocapture

fuzz: ## one fuzz target for a while: TARGET=via SECONDS=600; see tests/fuzz
	rustup run nightly cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $(TARGET) -- -max_total_time=$(or $(SECONDS),60)

fuzz-proof: ## each fuzz target finds a planted bug within 60 s; not part of `make test`
	$(STAGE) proof   tests/fuzz/proof.sh

instructions: bins ## the instructions of the SIP core under callgrind, against tests/benches/instructions.toml
	$(STAGE) instructions $(BUILT)/release/edge-bench instructions --bounds tests/benches/instructions.toml

bench-access: setup ## the Access Edge beside Kamailio, about 8 minutes; ROUNDS=5, or QUICK=1 to see that it works
	$(STAGE) build   $(CARGO) build --profile dist --locked -p edge-access --bin edge-access
	$(STAGE) build   $(CARGO) build --release --locked -p edge-tests --bin edge-bench
	$(STAGE) bench   $(BUILT)/release/edge-bench access --rounds $(if $(QUICK),1,$(ROUNDS)) $(if $(QUICK),--quick,) \
		--daemon $(BUILT)/dist/edge-access --benches tests/benches --page BENCHMARKS.md

bench-webconf: setup ## the Web Conferencing Edge beside HAProxy, about 6 minutes; ROUNDS=5, or QUICK=1
	$(STAGE) build   $(CARGO) build --profile dist --locked -p edge-webconf --bins
	$(STAGE) build   $(CARGO) build --release --locked -p edge-tests --bin edge-bench
	$(STAGE) bench   $(BUILT)/release/edge-bench webconf --rounds $(if $(QUICK),1,$(ROUNDS)) $(if $(QUICK),--quick,) \
		--daemon $(BUILT)/dist/edge-webconf --benches tests/benches --page BENCHMARKS.md

setup: ## Debian packages for the lab (starts no service)
	$(STAGE) setup   tests/setup.sh

clean: ## remove what was built
	$(CARGO) clean
