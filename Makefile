.PHONY: help prepare demo test lint clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/	/'

prepare:  ## install what is missing: system packages, and .venv
	@tools/prepare

demo: prepare  ## see a client refused, let in, and refused again, on this machine, in a minute
	@.venv/bin/envelope demo

test: prepare  ## run the whole test suite, with coverage
	@rm -f .coverage .coverage.*
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT INT TERM && \
	PYTEST_DEBUG_TEMPROOT=$$dir tools/in-namespace .venv/bin/python -m coverage run -m pytest
	@.venv/bin/python -m coverage combine -q
	@.venv/bin/python -m coverage report

lint: prepare  ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/mypy

clean:  ## remove what the other targets made
	@rm -rf .venv *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis
