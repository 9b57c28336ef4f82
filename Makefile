# Every command of the project. Each target is a few lines that anyone can run by hand; each ends with what passed.
#
#   make run        build the demo and the server, and serve on http://localhost:8080/   (ARGS="--data DIR ...")
#   make check      format, lints, documentation, the rules of the house, TypeScript
#   make test       every test, in its short form
#   make prove      the long fault runs: 50 kills, thousands of random cases
#   make fuzz       the property tests alone, with many cases   (CASES=20000)
#   make bench      what an edit, a join and a commit cost   (ROUNDS=3; SYNCLINE_B4=FILE for the real trace; ONLY=REGEX)
#   make browsers   the browser tests alone, in Chromium and Firefox

.DEFAULT_GOAL := run
.PHONY: run check test prove fuzz bench browsers tools node-tools browser-tools test-rust test-client test-npm

# npm projects with tests against the built server; each has a package-lock.json and `npm test`.
NPM_TESTS    := tests/interop
BROWSER_TESTS := tests/browser
# What the browser tests need from Debian.
BROWSERS     := chromium firefox-esr fonts-dejavu-core fonts-liberation
# The oldest Node that the tools of the client run on.
NODE_MIN     := 20.19.0

TARGET       := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The server that tests start.
export SYNCLINE_BIN := $(TARGET)/debug/syncline

CASES        ?= 20000
KILLS        ?= 50
ROUNDS       ?= 3

# Leaves out what is not there (yet).
with_lock     = $(patsubst %/package-lock.json,%,$(wildcard $(addsuffix /package-lock.json,$(1))))
npm_projects := $(call with_lock,$(NPM_TESTS) $(BROWSER_TESTS))
client       := $(call with_lock,client)
app_sources  := $(shell find client -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/test/*' 2>/dev/null)
app          := $(if $(client),client/app/dist/index.html)

run: $(app)
	cargo build --release --locked
	$(TARGET)/release/syncline serve $(ARGS)

client/app/dist/index.html: $(app_sources) client/node_modules/.package-lock.json
	cd client && npm run build
	@touch $@

# npm writes this file when it has installed what the lock file says.
%/node_modules/.package-lock.json: %/package-lock.json | node-tools
	cd $* && npm ci --no-audit --no-fund
	@touch $@

check: $(addsuffix /node_modules/.package-lock.json,$(client) $(npm_projects)) | tools
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items --quiet
	cargo test --locked --quiet --test tidy
	$(foreach project,$(client) $(npm_projects),npm run --prefix $(project) --if-present check &&) true
	@echo "check passed: format, clippy, documentation, tidy (layers, licences, specification), TypeScript"

test: test-rust test-client test-npm
	@echo "test passed: Rust, documentation examples, client, $(npm_projects)"

test-rust: $(app) | tools
	cargo build --locked
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --profile ci && cargo test --locked --doc --quiet; \
	else \
		cargo test --locked --quiet; \
	fi
	@echo "test-rust passed: unit, property, contract and integration tests, documentation examples"

test-client: $(addsuffix /node_modules/.package-lock.json,$(client))
	$(if $(client),npm test --prefix client,@echo "no client yet")
	@echo "test-client passed"

test-npm: $(addsuffix /node_modules/.package-lock.json,$(npm_projects)) $(app) | browser-tools
	cargo build --locked
	$(foreach project,$(npm_projects),npm test --prefix $(project) &&) true
	@echo "test-npm passed: $(or $(npm_projects),nothing yet)"

browsers: $(addsuffix /node_modules/.package-lock.json,$(call with_lock,$(BROWSER_TESTS))) $(app) | browser-tools
	cargo build --locked
	$(foreach project,$(call with_lock,$(BROWSER_TESTS)),npm test --prefix $(project) &&) true
	@echo "browsers passed: $(or $(call with_lock,$(BROWSER_TESTS)),nothing yet)"

# The fault loops of tests/it and the random runs of tests/interop read these two variables.
prove: $(addsuffix /node_modules/.package-lock.json,$(call with_lock,$(NPM_TESTS))) $(app) | tools
	cargo build --locked
	SYNCLINE_TEST_KILLS=$(KILLS) SYNCLINE_TEST_LONG=1 PROPTEST_CASES=$(CASES) cargo test --locked --quiet
	$(foreach project,$(call with_lock,$(NPM_TESTS)),SYNCLINE_TEST_KILLS=$(KILLS) SYNCLINE_TEST_LONG=1 npm test --prefix $(project) &&) true
	@echo "prove passed: $(KILLS) kills, $(CASES) cases a property"

fuzz:
	PROPTEST_CASES=$(CASES) cargo test --locked --quiet --lib -- doc:: protocol:: room::
	@echo "fuzz passed: $(CASES) cases a property"

# benches/README.md says what the figures mean.
bench:
	SYNCLINE_BENCH_ROUNDS=$(ROUNDS) cargo bench --locked --bench syncline -- $(if $(ONLY),'$(ONLY)')

# cargo-nextest runs each test in a process of its own, side by side. Without it `cargo test` does.
tools:
	@cargo nextest --version >/dev/null 2>&1 || { \
		echo "installing cargo-nextest by cargo install --locked"; \
		cargo install --locked --quiet cargo-nextest || echo "cargo-nextest could not be built; cargo test runs instead"; }

node-tools:
	@command -v npm >/dev/null || .ci/debian "for the client" nodejs npm
	@[ "$$(printf '%s\n' v$(NODE_MIN) "$$(node --version)" | sort -V | head -n 1)" = v$(NODE_MIN) ] || { \
		echo "Node $$(node --version) is too old for the client's tools; install $(NODE_MIN) or newer from nodejs.org"; exit 1; }

browser-tools:
	@$(if $(call with_lock,$(BROWSER_TESTS)),.ci/debian "for the browser tests" $(BROWSERS),true)

