# Everything runs in .venv, which each target makes or brings up to date by itself when it is missing or old.
# Needed: Python 3.11 or newer and make; the network, the first time. tools/setup.sh does it, and says what is missing.

ARGS    ?=
WORKERS ?= auto

ifeq ($(wildcard tools/setup.sh),)
$(error run make in the clearhead checkout, where the Makefile lies, not in $(CURDIR))
endif

bin       := .venv/bin
set-up-by := pyproject.toml constraints.txt tools/setup.sh
# One torch thread for each of up to four test processes: the tests' tensors are small.
# Compiled tests are kept: with checks of types and shapes in all of clearhead, to compile it takes longer than to run it.
pytest     = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(WORKERS) --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: explore test test-all check bench docs clean help
.NOTPARALLEL:

explore: .venv/.explore-ready ## open the explorer in the browser; ARGS='--help' says what it takes
	$(bin)/clearhead explore $(ARGS)

test: .venv/.dev-ready ## run the tests; ARGS='-k masks' narrows them
	$(pytest) $(ARGS)

test-all: .venv/.dev-ready ## run the slow tests too
	$(pytest) -m '' $(ARGS)

check: .venv/.dev-ready ## format, lint, types, and who imports whom
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo

bench: .venv/.dev-ready ## measure looking and loading against the peers, in one run each
	$(bin)/python -m bench.look $(ARGS)
	$(bin)/python -m bench.load

docs: .venv/.dev-ready ## run the code of the tour; the pages are plain Markdown, from docs/tour/ on
	$(bin)/python -m pytest tests/docs $(ARGS)
	@echo 'The docs are Markdown, to be read as they are: docs/tour/ and docs/decisions/'

clean: ## remove caches and builds (.venv stays; rm -rf .venv takes it away)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests bench examples tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=python3.12 picks the Python; TORCH_INDEX=https://download.pytorch.org/whl/cpu the small build of torch on Linux"

.venv/.explore-ready: $(set-up-by)
	@sh tools/setup.sh explore

.venv/.dev-ready: $(set-up-by)
	@sh tools/setup.sh dev

# An environment made for another place, or whose Python is gone, does not count as ready.
ifneq ($(shell [ -x $(bin)/python ] && cat .venv/.checkout 2>/dev/null),$(CURDIR))
.PHONY: .venv/.explore-ready .venv/.dev-ready
endif
