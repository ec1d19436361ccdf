# `make run`: a demo to try, `make test`: the suite, `make test-faults`: faults on purpose, some minutes, `make test-interleave`:
# one pod in the middle of another's work, some minutes, `make test-attack`: hostile peers, clocks and data, up to three minutes; each
# installs what is missing. `.ci/run` does all of that. `make test-servers`: suite, faults and SDKs on Redis 8 and Valkey 9 too, half an
# hour. `make fuzz`: a million inputs for each parser of what others send, half an
# hour with the build. `make loadtest`: k6 at pods, some 20 minutes. `make bench`: against its ceiling, its peers and itself, most of
# an hour.

CARGO ?= cargo
TARGET = $${CARGO_TARGET_DIR:-target}
BINARY = $(TARGET)/debug/unread

# REDIS_SERVER=PROGRAM: what the demo and the tests start where they want a Redis, in place of the `redis-server` in PATH; a Valkey will do.
ON = $(if $(REDIS_SERVER),scripts/on-server "$(REDIS_SERVER)")
# SKIP="--skip NAME": tests that are left out.
SKIP ?=
# Most tests wait most of the time, so more run at once than there are cores.
AT_ONCE = --test-threads $$((2 * $$(nproc 2>/dev/null || echo 2)))

.PHONY: openapi run test-deploy test-web screenshots test test-rights test-servers test-servers-quick test-faults test-interleave soak-model soak-orders test-attack fault-report lint fuzz test-sdk loadtest loadtest-smoke soak-counts bench bench-peers python redis curl

run: redis
	$(ON) $(CARGO) run --release --locked -- demo

test: redis curl
	$(ON) $(CARGO) test --locked --lib --bins --test it -- $(AT_ONCE) $(SKIP)

# Of the suite: the least rights that docs/redis.md gives, and what `doctor` says of a server.
test-rights: redis
	$(ON) $(CARGO) test --locked --test it -- rights:: selfcheck::doctor

# All of it on each server that can be had, a line for each at the end. The quick one: the rights, on Redis 8 and Valkey 9.
test-servers: redis python .venv/installed
	CARGO="$(CARGO)" scripts/servers test test-faults test-sdk

test-servers-quick: redis python
	CARGO="$(CARGO)" scripts/servers quick

# What compares what messages cost, and how long they take, runs alone; so does what keeps the whole machine busy.
test-faults: redis
	$(ON) $(CARGO) test --locked --test faults -- --skip sizes:: --skip overload:: $(AT_ONCE) $(SKIP)
	$(ON) $(CARGO) test --locked --test faults -- --test-threads 1 sizes:: overload:: $(SKIP)

# The same, and the table of what was injected and what was lost: loadtest/results/faults.md.
fault-report: redis
	mkdir -p loadtest/results
	FAULT_REPORT="$(CURDIR)/loadtest/results/faults.md" $(CARGO) test --locked --test faults

# Two pods at every command of each other. INTERLEAVE=all: all of it, for hours; INTERLEAVE=NAME: one case and its commands.
test-interleave: redis
	$(CARGO) test --locked --test interleave -- --nocapture

# Many random histories against the model: seeds FROM to TO, STEPS (200) events each. Without FROM it goes on after those that agreed.
soak-model: redis
	$(ON) FROM="$(FROM)" TO="$(TO)" STEPS="$(STEPS)" CARGO="$(CARGO)" scripts/soak-model

# Small histories by time, in every order of arrival: of three events on a server, of up to six in the model.
soak-orders: redis
	$(ON) TEST_ORDERS=all $(CARGO) test --locked --release --test it -- api::events::order model::any_order --nocapture

# Each attack with its bound on memory and CPU of the pod. What needs the machine for itself runs alone.
test-attack: redis
	$(CARGO) test --locked --test attack -- --skip alone:: --skip crowd:: $(AT_ONCE)
	$(CARGO) test --locked --test attack -- --test-threads 1 alone:: crowd::

# What deploy/compose.yaml describes, without containers, and the systemd unit. Installs nginx.
test-deploy: redis python
	$(CARGO) build --locked
	scripts/try-deploy "$(BINARY)"

IN_BROWSER = CHROMIUM="$$(command -v chromium || command -v chromium-browser)" UNREAD="$$(realpath "$(BINARY)")" \
	$(ON) npm --prefix tests/web test

# The console and the demo page in a real browser: by keyboard, in narrow and wide windows, light and dark, and by axe-core. live.js
# against servers that break off.
test-web: redis tests/web/node_modules/.package-lock.json
	scripts/install chromium
	$(CARGO) build --locked
	$(IN_BROWSER)

# The same, and the pictures of docs/images.
screenshots: redis tests/web/node_modules/.package-lock.json
	scripts/install chromium
	$(CARGO) build --locked
	SHOTS="$(CURDIR)/docs/images" $(IN_BROWSER)

tests/web/node_modules/.package-lock.json: tests/web/package-lock.json
	scripts/install node
	cd $(<D) && npm ci --no-audit --no-fund --ignore-scripts
	touch $@

# docs/openapi.json from docs/openapi.yaml; the suite says when that is needed.
openapi:
	WRITE_OPENAPI=1 $(CARGO) test --locked --test it -- openapi::the_json_is_the_yaml

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	"$$(scripts/install cargo-machete)" --skip-target-dir
	scripts/deny

# RUNS=n: inputs for each target, 0: the seeds alone; ONLY=heads,events,counts,queries,tokens,usersig,records: these. Needs a C++ compiler.
fuzz:
	RUNS="$(or $(RUNS),1000000)" CARGO="$(CARGO)" scripts/fuzz "$(ONLY)"

# The vendors' own Python packages against the real binary.
test-sdk: redis .venv/installed
	$(CARGO) build --locked
	$(ON) .venv/bin/python tests/sdk/run.py "$(BINARY)"

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

# A million counts from a file (ROWS=n: so many), compared; then others beside messages. Some minutes.
soak-counts: python redis
	$(CARGO) build --release --locked
	python3 loadtest/counts.py "$(TARGET)/release/unread" $(or $(ROWS),1000000)

python curl:
	scripts/install $@

redis:
	$(ON) scripts/install redis

# ONLY=reads,rooms runs some, BENCH_QUICK=1 tries all of it in two minutes. See loadtest/bench/__main__.py.
bench: redis loadtest/.venv/installed loadtest/.tools/bin/oha bench-peers
	scripts/install wrk
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --manifest-path loadtest/peers/ceiling/Cargo.toml
	cd loadtest && ONLY="$(ONLY)" .venv/bin/python -m bench

# What others would use instead. One that can't be installed here is in the results as missing.
bench-peers:
	-$(CARGO) build --release --locked --manifest-path loadtest/peers/axum/Cargo.toml
	-scripts/install webdis
	-scripts/install nginx
	-scripts/install nchan
	-$(MAKE) --no-print-directory loadtest/peers/node/node_modules/.package-lock.json
	-$(MAKE) --no-print-directory loadtest/peers/fastapi/.venv/installed

loadtest/peers/node/node_modules/.package-lock.json: loadtest/peers/node/package-lock.json
	scripts/install node
	cd $(<D) && npm ci --no-audit --no-fund
	touch $@

loadtest/.tools/bin/oha:
	$(CARGO) install --locked oha@1.16.0 --root loadtest/.tools

loadtest/.venv/installed: loadtest/bench/requirements.txt
	scripts/install python
	rm -rf loadtest/.venv
	python3 -m venv loadtest/.venv
	loadtest/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

loadtest/peers/fastapi/.venv/installed: loadtest/peers/fastapi/requirements.txt
	scripts/install python
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@
