# Two commands for a fresh machine: `make demo` and `make test`. Each line is a plain command; README.md
# and CONTRIBUTING.md show them too.

VENV := .venv
PY := $(VENV)/bin/python
# auto: the small set of real photos if it can be downloaded, else drawings. Or name one: small, drawn.
PHOTOS ?= auto
# Small pictures, so that the demo takes minutes. Without this flag, training takes longer and the
# model is better.
DEMO_FLAGS ?= --image-size 128
# Two processes. The tests of one file stay in one process, because they share a trained network.
TEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint lock clean help

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/users ## install, get photos and weights, train, predict two photos
	@sh tools/demo.sh $(PY) $(PHOTOS) $(DEMO_FLAGS)

test: lint ## check style and types, run the default tests
	$(PY) -m pytest $(TEST_FLAGS)

lint: $(VENV)/developers ## check style, types, and the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

lock: $(VENV)/developers ## update requirements*.txt from requirements*.in
	@lock() { $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --upgrade -o "$$@"; }; \
	base=requirements-base.in; users="$$base requirements.in"; \
	lock requirements-base.txt $$base && lock requirements.txt $$users && \
	lock requirements-dev.txt $$users requirements-dev.in && \
	lock requirements-gpu.txt $$users requirements-gpu.in && \
	lock requirements-serve.txt requirements-serve.in -c requirements-base.txt

clean: ## remove .venv, what a build left and the caches of the tools, but no runs and no photos
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build cats_vs_dogs.egg-info

$(VENV)/made:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
			2>/dev/null; then \
			$$python -m venv $(VENV) && touch $@ && exit 0; exit 1; \
		fi; \
	done; \
	echo "expected Python 3.11, 3.12 or 3.13, which TensorFlow supports; received" \
		"$$(python3 --version 2>&1); name one: make PYTHON=/path/to/python3.12 TARGET" >&2; \
	exit 2

$(VENV)/users: requirements.txt | $(VENV)/made
	$(PY) -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/developers: requirements-dev.txt | $(VENV)/made
	$(PY) -m pip install --quiet -r requirements-dev.txt
	@touch $@
