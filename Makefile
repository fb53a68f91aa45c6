# Every target makes the virtual environment it needs in .venv and installs what requirements.lock pins.
# Needs Python 3.11 or newer (with its venv module), make, git. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
# Extra arguments for the command a target runs: make test ARGS="-k card -x"
ARGS ?=
# make V=1 shows what is installed, package by package
V ?=

VENV := .venv
BIN := $(VENV)/bin
# The stamps say which set is installed; a change of the dependencies installs anew.
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
PINS := pyproject.toml requirements.lock
# What the benchmark compares with: daft wants an older pyarrow than requirements.lock pins.
PEERS := .venv-peers

# Where it is set, each process compiles every module anew: half the CPU time of a worker's start.
unexport PYTHONDONTWRITEBYTECODE
# Tests that kill, race or wait depend on what else a machine does. A test that fails is run once more, three tests at
# most in a suite; each is named in the summary, with the traceback of its failure, and is a bug to mend.
RERUNS = --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks -raR

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo dev test test-all test-lowest test-highest test-tools lint docs format lock wheel release clean bench soak fuzz bench-peers

help: ## show this list
	@echo 'usage: make TARGET [PYTHON=python3] [ARGS="..."] [V=1]'
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(CORE) ## segment 64 street scenes on a local Ray cluster, show the report
	@echo '==> segment demo'
	$(BIN)/segment demo $(ARGS)

dev: $(DEV) ## install everything that development needs into .venv

test: $(DEV) ## run the tests but the slow ones
	@echo '==> pytest (all but the tests marked slow)'
	$(BIN)/pytest -n auto $(RERUNS) -m 'not slow' $(ARGS)

test-all: $(DEV) ## run every test
	@echo '==> pytest (every test)'
	$(BIN)/pytest -n auto $(RERUNS) $(ARGS)

test-lowest: $(DEV) ## the core tests on the wheel, with the lowest versions that pyproject.toml allows
	PYTHON=$(PYTHON) .ci/core lowest $(ARGS)

test-highest: $(DEV) ## the same with the newest versions there are
	PYTHON=$(PYTHON) .ci/core highest $(ARGS)

test-tools: $(DEV) ## exports opened by Datumaro, Label Studio's SDK, FiftyOne; scores by torchmetrics; 10 GB
	.ci/tools $(ARGS)

wheel: $(DEV) ## build sdist and wheel into dist/, check them, run the demo of the wheel
	PYTHON=$(PYTHON) .ci/wheel

release: $(DEV) ## check, build, try and tag the version of pyproject.toml; ARGS=--dry-run
	PYTHON=$(PYTHON) .ci/release $(ARGS)

bench: $(CORE) ## images a second of the job against the bare library calls; quiet machine, about an hour
	@echo '==> jobs/benchmark.py'
	$(BIN)/python jobs/benchmark.py $(ARGS)

soak: $(DEV) ## random faults for 15 minutes, every run completed and compared; ARGS="--minutes 1 --seed 7"
	@echo '==> soak'
	$(BIN)/python -m tests.reliability.soak $(ARGS)

fuzz: $(DEV) ## damaged input for every reader, 5 minutes; ARGS="--minutes 1 --seed 7"
	@echo '==> fuzz'
	$(BIN)/python -m tests.reliability.fuzz $(ARGS)

bench-peers: $(CORE) $(PEERS)/.installed ## the same with what people would use instead, in an environment of its own
	@echo '==> jobs/benchmark.py'
	$(BIN)/python jobs/benchmark.py --cases unet32-bf16 unet32-onnxruntime --rounds 3 --number 64 \
	  --contenders limit local ray plain-loop ray-data daft torch $(ARGS)
	$(BIN)/python jobs/benchmark.py --cases deeplab-onnxruntime --rounds 3 --number 202 \
	  --contenders limit local ray plain-loop ray-data daft torch $(ARGS)

lint: $(DEV) ## ruff, mypy, import-linter; workflows, Dockerfile, CITATION.cff; changes nothing
	@echo '==> ruff, mypy, import-linter, zizmor, hadolint, check-jsonschema'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/hadolint --config .hadolint.yaml jobs/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

docs: $(DEV) ## build the documentation site into site/, strictly; look: python -m http.server -d site
	@echo '==> mkdocs build'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo '==> site/ is built; to look at it: python -m http.server -d site'

format: $(DEV) ## let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## regenerate requirements.lock, keeping what still fits; newest of all: ARGS=--upgrade
	@echo '==> resolving pyproject.toml into requirements.lock'
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --disable-pip-version-check uv
	$(VENV)-lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 \
	  --extra dev --extra gcs --extra azure \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --quiet --output-file requirements.lock $(ARGS)

clean: ## remove the environments, caches and build products; output of runs stays
	rm -rf .venv .venv-lock .venv-lowest .venv-highest .venv-wheel .venv-tools $(PEERS) .bench build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find segment tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed, "$(PYTHON)" is not: make ... PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

PIP = $(BIN)/python -m pip install --disable-pip-version-check --constraint requirements.lock
# What the installers print. `make V=1` shows it as they do.
LOG := $(VENV)/install.log
PACKAGES = find $(VENV)/lib -maxdepth 3 -name '*.dist-info' | wc -l

# uv installs in a fifth of pip's time. It does not read pip's settings, such as another index: pip takes over where it
# fails. Bytecode, for processes of Ray where PYTHONDONTWRITEBYTECODE is set: half the CPU time of their start.
define install
@began=$$(date +%s); { $(PIP) --quiet uv && \
  $(BIN)/uv pip install --system-certs --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '$(1)' || \
  { echo '==> uv could not; pip tries' >&3; $(PIP) --editable '$(1)'; }; } 3>&2 $(if $(V),,>$(LOG) 2>&1) || \
  { $(if $(V),,tail -n 20 $(LOG); echo '==> the installation failed; all that it said is in $(LOG)';) exit 1; } >&2; \
  echo "==> $$($(PACKAGES)) packages are installed, in $$(($$(date +%s) - began)) s"
endef

$(CORE): $(PINS) | $(BIN)/python
	@echo '==> installing segment into $(VENV) (a minute or two, 1.2 GB)'
	$(call install,.)
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	@echo '==> installing segment and its development tools into $(VENV) (a minute or two, 1.7 GB)'
	$(call install,.[dev])
	@touch $(CORE) $@

$(PEERS)/.installed: pyproject.toml
	@echo '==> installing what the benchmark compares with into $(PEERS)'
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --editable '.[bench]'
	@touch $@
