# `make run`: a demo to try, `make test`: the suite, `make test-faults`: faults on purpose, some minutes; each installs what is
# missing. `.ci/run` does all of it. `make loadtest` measures, and takes a while.

CARGO ?= cargo
TARGET = $${CARGO_TARGET_DIR:-target}
BINARY = $(TARGET)/debug/unread

.PHONY: run test test-faults fault-report lint test-sdk loadtest loadtest-smoke python redis

run: redis
	$(CARGO) run --release --locked -- demo

test: redis
	$(CARGO) test --locked --lib --bins --test it

# Without the tests of the modules that it shares with the suite above.
FAULTS = --locked --test faults -- --skip random:: --skip model:: --skip support::

test-faults: redis
	$(CARGO) test $(FAULTS)

# The same, and the table of what was injected and what was lost: loadtest/results/faults.md.
fault-report: redis
	mkdir -p loadtest/results
	FAULT_REPORT="$(CURDIR)/loadtest/results/faults.md" $(CARGO) test $(FAULTS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# The vendors' own Python packages against the real binary.
test-sdk: redis .venv/installed
	$(CARGO) build --locked
	.venv/bin/python tests/sdk/run.py "$(BINARY)"

.venv/installed: tests/sdk/requirements.txt
	scripts/install python
	rm -rf .venv
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# The k6 scenarios in loadtest/, at pods of their own or at BASE_URL=http://...; ONLY=limit,spike: these; DURATION=10s: each.
loadtest: python $(if $(BASE_URL),,redis)
	$(if $(BASE_URL),,$(CARGO) build --release --locked)
	python3 loadtest/run.py $(if $(BASE_URL),,"$(TARGET)/release/unread")

# The same for some seconds each, at low rates and without bounds on time, at the binary that `make test` builds.
loadtest-smoke: python $(if $(BASE_URL),,redis)
	$(if $(BASE_URL),,$(CARGO) build --locked)
	python3 loadtest/run.py --smoke $(if $(BASE_URL),,"$(BINARY)")

python:
	scripts/install python

redis:
	scripts/install redis
