# Everything that a contributor or the CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
# Children see the same environment as without make.
unexport MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES PYTHON ARGS PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help setup demo test thorough browser siege conformance operators accuracy islands models smollm2 test-models lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-19s %s\n' "$$t" "$$d"; done

setup: $(STAMP) ## make .venv and install waferc into it, with everything that the checks need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("waferc needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

smollm2: $(STAMP) ## a language model: export it to build/smollm2.onnx, compile it to build/smollm2.wafer
	$(BIN)/python examples/fetch_models.py smollm2
	$(BIN)/python examples/smollm2/export.py build/models/SmolLM2-135M-Instruct.Q4_1.gguf build/smollm2.onnx
	$(BIN)/waferc compile build/smollm2.onnx -o build/smollm2.wafer --capacity 1024 \
		--entry prefill:S=64 --entry decode:S=1 \
		--tokenizer build/smollm2/tokenizer.json --chat-template build/smollm2/chat_template.jinja

demo: $(STAMP) ## compile the bundled model for wse3, run it on real images, verify it, draw it
	$(BIN)/python examples/01_demo.py

test: $(STAMP) ## the tests that need no download, but those that take long
	$(BIN)/python -m pytest -n auto -m "not models and not thorough and not browser" $(ARGS)

thorough: $(STAMP) ## those that take long: golden plans, each number of the policy, each type of each operator
	$(BIN)/python -m pytest -n auto -m thorough $(ARGS)

browser: $(STAMP) ## the report in headless Chromium, which apt-get installs where it is missing and may
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || \
		{ command -v apt-get >/dev/null && sh -c 'S=$$(test "$$(id -u)" = 0 || echo "sudo -n"); $$S apt-get update -qq && $$S apt-get install -y -qq --no-install-recommends chromium >/dev/null'; } || \
		echo "no Chromium, and none can be installed: the tests will be skipped" >&2
	$(BIN)/python -m pytest -n auto -m browser -rs $(ARGS)

siege: $(STAMP) ## hostile models, programs, inputs and folders for some minutes: ARGS="--minutes 10", "--only import"
	PYTHONPATH=tests $(BIN)/python -m siege $(ARGS)

conformance: $(STAMP) ## ONNX's own backend tests, all of them, into build/conformance.json, and onnxruntime's operators
	$(BIN)/python tests/conformance.py $(ARGS)
	$(BIN)/python tests/contrib.py

operators: $(STAMP) ## write docs/operators.md anew
	$(BIN)/python tests/operators.py

accuracy: $(STAMP) ## predicted cycles beside published measurements, into docs/accuracy.md (some minutes); ARGS="--rows FILE.csv"
	$(BIN)/python benchmarks/accuracy.py $(if $(ARGS),$(ARGS),-o docs/accuracy.md --errors compiler/show/expected_error.json)

islands: $(STAMP) ## predicted tokens per second of GPU islands beside published ones, into docs/islands.md
	$(BIN)/python benchmarks/islands.py $(if $(ARGS),$(ARGS),-o docs/islands.md)

models: $(STAMP) ## fetch the larger models into build/models
	$(BIN)/python examples/fetch_models.py

test-models: models ## compile, run and verify every model
	$(BIN)/python -m pytest -n auto -m models $(ARGS)

lint: $(STAMP) ## ruff (rules and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: models ## every workload against onnxruntime on this machine, in pairs (20 minutes at most)
	$(BIN)/python benchmarks/run.py $(ARGS)

clean: ## remove build/ and the caches, keep .venv
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
