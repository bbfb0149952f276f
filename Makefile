# Everything runs in .venv, made from requirements.lock.
PYTHON ?= python3
RUN := .venv/bin/python
STAMP := .venv/.from-lock

.PHONY: study claims claims-cost test test-fast tests style types lint ui notebooks readme bench validate soak lock clean

study: $(STAMP)
	$(RUN) -m studies.run +study=init_comparison

# Every claim that ships, in one pool of workers, then the board; goes on where it was stopped. PROFILE=full for all
# seeds, draws and data; make claims-cost says what that costs.
PROFILE ?= quick
empty :=
space := $(empty) $(empty)
comma := ,
CLAIMS = $(subst $(space),$(comma),$(patsubst conf/study/%.yaml,%,$(wildcard conf/study/claims/*.yaml)))

claims: $(STAMP)
	@$(RUN) -m studies.run -m +study=$(CLAIMS) profile=$(PROFILE); code=$$?; \
		test $$code -gt 2 || $(RUN) -m analysis.claims; exit $$code

claims-cost: PROFILE = full
claims-cost: $(STAMP)
	@$(RUN) -m studies.run -m +study=$(CLAIMS) profile=$(PROFILE) plan=true

# Whatever PYTHONDONTWRITEBYTECODE says: the tests start some hundred processes, and each would compile all of our code.
# Of two cores a quarter is idle with two processes of tests: they wait for other processes, servers and a browser.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(RUN) -m pytest -n 3 --dist worksteal

test: style
	@$(MAKE) --no-print-directory -j 2 types tests

test-fast: MARKED = -m "not slow"
test-fast: style
	@$(MAKE) --no-print-directory -j 2 types tests MARKED='$(MARKED)'

tests: $(STAMP)
	$(PYTEST) $(MARKED)

style: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(STAMP)
	$(RUN) -m mypy

lint: style types

ui: $(STAMP)
	$(RUN) -m analysis.ui

# Of studies that are finished nothing is trained again.
notebooks: $(STAMP)
	for study in init_comparison optimizer_comparison schedule_comparison; do \
		$(RUN) -m studies.run +study=$$study || exit 1; \
	done
	$(RUN) -m analysis.notebooks
	$(RUN) -m benchmarks.readme --root mlruns

# Trains the main job anew.
readme: $(STAMP)
	$(RUN) -m benchmarks.readme

bench: $(STAMP)
	$(RUN) -m benchmarks.bench

validate: $(STAMP)
	$(RUN) -m benchmarks.validate

# 3,000 tiny trials whose workers and driver are killed: some ten minutes.
soak: $(STAMP)
	$(RUN) -m benchmarks.soak

# Python 3.11 or later. Bytecode is compiled here, whatever PYTHONDONTWRITEBYTECODE says: without it TensorFlow takes
# 15 s to import instead of 6.
$(STAMP): requirements.lock
	@test ! -L .venv || { echo ".venv is a link, to an environment that others may use, and older than the lock:" \
		"remove the link for one of your own, or touch $(STAMP) to use it as it is"; exit 1; }
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv --clear .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(RUN) -m compileall -q -j 0 .venv/lib > /dev/null || true
	touch $(STAMP)

lock: $(STAMP)
	.venv/bin/uv pip compile pyproject.toml --extra dev --extra edge --extra importance --extra cluster --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --quiet --output-file requirements.lock

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
