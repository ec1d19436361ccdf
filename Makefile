# `make run`: a demo to try, `make test`: the suite, `make test-faults`: faults on purpose, some minutes; each installs what is
# missing. `.ci/run` does all of it.

CARGO ?= cargo
BINARY = $${CARGO_TARGET_DIR:-target}/debug/unread

.PHONY: run test test-faults fault-report lint test-sdk redis

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

redis:
	scripts/install redis
