.PHONY: help prepare demo test soak mutants fuzz lint bench bench-full clean

# How long (seconds) each of the three targets of "make fuzz" runs.
FUZZ_SECONDS ?= 30

# How long (seconds) "make soak" runs.
SOAK_SECONDS ?= 3600

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/	/'

prepare:  ## install what is missing: system packages, and .venv
	@tools/prepare

demo: prepare  ## see a client refused, let in, and refused again, on this machine, in a minute
	@.venv/bin/envelope demo

test: prepare  ## run the whole test suite, with coverage
	@rm -f .coverage .coverage.*
	@.venv/bin/python tools/test
	@.venv/bin/python -m coverage combine -q
	@.venv/bin/python -m coverage report

soak: prepare  ## anything in any order, and kill -9 at random moments, for SOAK_SECONDS
	@export SOAK_SECONDS=$(SOAK_SECONDS); \
	tools/in-namespace .venv/bin/python -m pytest -q -s tests/kernel/test_model.py & model=$$!; \
	tools/in-namespace .venv/bin/python -m pytest -q -s tests/end_to_end/test_crashes.py; \
	crashes=$$?; wait $$model && exit $$crashes

mutants: prepare  ## plant faults in copies of the firewall and see each found (some 10 minutes); FAULTS="5 jump" for some
	@.venv/bin/python -m tests.kernel.mutants $(FAULTS)

fuzz: prepare  ## let a coverage-guided fuzzer loose on tokens, requests and frames, for FUZZ_SECONDS each
	@.venv/bin/python -c 'import atheris' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[fuzz]'
	@for path in token request frame; do \
	    echo "fuzzing the $$path path for $(FUZZ_SECONDS) s"; \
	    .venv/bin/python -m tests.fuzz.run $$path -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	        -verbosity=0 || exit 1; \
	done

lint: prepare  ## ruff, mypy, and who may import whom (.importlinter)
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo --no-cache

bench: prepare  ## measure, in minutes, and write docs/performance.md (as root)
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@.venv/bin/python -m benchmarks

bench-full: prepare  ## the large measurements too, in half an hour
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@.venv/bin/python -m benchmarks --full

clean:  ## remove what the other targets made
	@rm -rf .venv *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis crash-*
