.PHONY: help prepare demo check test coverage lint versions constraints soak mutants fuzz bench bench-full dist deb docs reference image unit release clean

# How long (seconds) each of the three targets of "make fuzz" runs.
FUZZ_SECONDS ?= 30

# How long (seconds) "make soak" runs.
SOAK_SECONDS ?= 3600

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo 'One folder, one file, one test:'
	@echo '    tools/in-namespace .venv/bin/python -m pytest tests/front'
	@echo '    tools/in-namespace .venv/bin/python -m pytest tests/front/test_handshake.py'
	@echo '    tools/in-namespace .venv/bin/python -m pytest tests/front/test_handshake.py -k NAME'

prepare:  ## install what is missing: system packages, and .venv from constraints.txt
	@tools/prepare

demo:  ## show on this machine, in a minute, how a client is refused, let in and refused again
	@tools/prepare --without-test-programs
	@.venv/bin/envelope demo

check: prepare  ## within a minute: the linters, and every test without kernel rules and child processes
	@tools/check

test: prepare  ## run the whole test suite
	@.venv/bin/python tools/test

coverage: prepare  ## run it with coverage, half as slow again; fails under 95 %
	@rm -f .coverage .coverage.*
	@.venv/bin/python tools/test --coverage
	@.venv/bin/python -m coverage combine -q
	@.venv/bin/python -m coverage report

lint: prepare  ## run ruff, mypy and import-linter
	@.venv/bin/ruff check .
	@.venv/bin/lint-imports --no-logo --no-cache
	@.venv/bin/mypy

versions: prepare  ## run the tests of check on other Pythons, at the lowest and at the newest versions
	@.venv/bin/python tools/versions $(JOBS)

constraints: prepare  ## write constraints.txt anew from the newest versions, if they pass
	@.venv/bin/python tools/versions --raise

soak: prepare  ## random steps in any order and kill -9 at random moments, for SOAK_SECONDS
	@export SOAK_SECONDS=$(SOAK_SECONDS); \
	tools/in-namespace .venv/bin/python -m pytest -q -s tests/kernel/test_model.py & model=$$!; \
	trap 'kill $$model' INT TERM; \
	tools/in-namespace .venv/bin/python -m pytest -q -s tests/end_to_end/test_crashes.py; \
	crashes=$$?; wait $$model && exit $$crashes

mutants: prepare  ## plant faults in copies of the firewall; the tests must find each (10 minutes); FAULTS="5 jump" for some
	@.venv/bin/python -m tests.kernel.mutants $(FAULTS)

fuzz: prepare  ## fuzz tokens, requests and frames, guided by coverage, for FUZZ_SECONDS each
	@.venv/bin/python -c 'import atheris' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@for path in token request frame; do \
	    echo "fuzzing the $$path path for $(FUZZ_SECONDS) s"; \
	    .venv/bin/python -m tests.fuzz.run $$path -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	        -verbosity=0 || exit 1; \
	done

bench: prepare  ## measure, in minutes, and write docs/performance.md (as root)
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@.venv/bin/python -m benchmarks

bench-full: prepare  ## the large measurements too, in half an hour
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || \
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@.venv/bin/python -m benchmarks --full

dist: prepare  ## build a wheel and an sdist in dist/; the same commit gives the same bytes
	@.venv/bin/python tools/dist

deb: prepare  ## build a Debian package in dist/, and try it in a fresh Debian (as root, 2 minutes)
	@.venv/bin/python tools/deb

docs: prepare  ## write docs/reference.md from the code, and make a site of the pages in build/docs
	@.venv/bin/python tools/site --prepare
	@.venv/bin/python tools/reference
	@.venv/bin/python tools/site build/docs
	@echo build/docs/docs/README.html

reference: prepare  ## write docs/reference.md from the code
	@.venv/bin/python tools/reference

image: prepare  ## do the Dockerfile's steps without an engine, and try the image (as root, 2 minutes)
	@.venv/bin/python tools/try-image

unit: prepare  ## run the units of deploy/ under a systemd of their own (as root, 2 minutes)
	@.venv/bin/python tools/try-unit

release: prepare  ## go through the checklist of a release (half an hour); tools/release --help
	@.venv/bin/python tools/release

clean:  ## remove what the other targets made, .venv included
	@rm -rf .venv build dist tests/node/node_modules *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis crash-*
