# Two commands do all: `make run` and `make test`. Both install what is missing (as root, on Debian 12 or later).
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-kernels check bench bench-here bench-lab bench-start docs docs-check coverage release format lock clean
CONFIG ?= krie.toml
ARGS ?=
BIN := .venv/bin

help:     ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 21

run:      ## install what is missing and run the agent in the foreground (CONFIG=krie.toml ARGS="--duration 60")
	@tools/setup run
	@exec $(BIN)/krie run --config $(CONFIG) $(ARGS)

test:     ## install what is missing, check and test everything, guests too (ARGS="tests/unit -k name": pytest's, for some)
	@tools/setup test
	@$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests.everything)

test-fast: ## checks, unit and policy tests: what fails between two edits
	@tools/setup test
	@$(BIN)/python -m tests.everything --fast

test-kernels: ## run the kernel tests, the slow ones too, on all stock kernels, in QEMU, and renew their tables in docs/reference/kernels.md
	@tools/setup kernels
	@$(BIN)/python -m tests.lab.all_suites $(ARGS)

check:    ## formats, linters, types, C warnings, Rego tests and style
	@tools/setup test
	@tools/check

bench: bench-here bench-lab ## measure and print ratios: both of these

bench-here: ## what KRIe costs on this machine
	@tools/setup test
	@$(BIN)/python -m tests.bench.run $(ARGS)

bench-lab: ## what KRIe costs ordinary work, by instructions counted in guests (twenty boots, emulated); renews docs/reference/cost.md
	@tools/setup test
	@$(BIN)/python -m tests.bench.lab
	@$(BIN)/python -m tests.bench.start --kernel debian-5.10 debian-6.1 debian-6.12 debian-newest

bench-start: ## what a start and an end wait for, in a guest (ARGS="--kernel debian-5.10 debian-6.1 --runs cold warm")
	@tools/setup test
	@$(BIN)/python -m tests.bench.start $(ARGS)

docs:     ## renew the generated parts of README.md and docs/; build the site (build/site) and the manual pages (build/man)
	@tools/setup test
	@$(BIN)/python -m tools.docs
	@$(BIN)/python -m tools.docs --man build/man
	@tools/site build/site

docs-check: ## are the generated parts fresh, and do all links and anchors lead somewhere? (part of `make check` and `make test`)
	@tools/setup test
	@$(BIN)/python -m pytest -q tests/unit/test_docs.py
	@tools/site .cache/site

coverage: ## run the unit and policy tests, and print which lines they leave out (what kernels and guests run is not in it)
	@tools/setup test
	@$(BIN)/python -m coverage run -m pytest -q -p no:cacheprovider tests/unit tests/policy $(ARGS)
	@$(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report

release:  ## build into build/release: sdist, wheel, SBOM, provenance, checksums (of a tagged commit; ARGS=--snapshot: any)
	@tools/setup test
	@$(BIN)/python tools/release.py $(ARGS)

format:   ## format Python, BPF C and Rego
	@tools/setup test
	@$(BIN)/clang-format -i bpf/*.[ch] plugins/*/*.c examples/*/*/*.c tests/*/*.c tests/*/*/*.[ch]
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix . && .cache/tools/opa fmt -w policies examples

lock:     ## resolve the dependencies again, with hashes
	@tools/setup test
	@tools/lock

clean:    ## remove what the other commands made here
	@rm -rf .venv .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
