# `make demo` runs the experiment of params.yaml and prints its tables; `make test` runs the tests.
# Both first make .venv with the locked packages, which `make install` does alone.
PYTHON ?= python3
CORES ?= all
DEVICE ?= cuda
VENV := .venv
INSTALLED := $(VENV)/installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

PEER := .venv-peer
OLDEST := .venv-oldest

.PHONY: install demo test test-slow test-all test-oldest faults bench gpu-check lint format docs lock hooks image sif test-containers test-slurm

install: $(INSTALLED)

demo: $(INSTALLED)
	python -m moonshine sync
	snakemake --cores $(CORES)
	dvc repro
	@python -m moonshine show

# A process for each core; an idle one takes over tests that wait for another.
SIDE_BY_SIDE := --numprocesses logical --dist worksteal
# The tests that need a container engine; the others beside them do without.
IN_CONTAINERS := tests/containers/test_images.py

test: $(INSTALLED)
	python -m pytest $(SIDE_BY_SIDE) -m "not slow"

test-slow: $(INSTALLED)
	python -m pytest $(SIDE_BY_SIDE) -m slow --ignore $(IN_CONTAINERS) --ignore tests/slurm --ignore tests/faults

test-all: test test-slow test-containers test-slurm

# The long form of tests/faults, an hour or two, whole or in parts (PART=kills); its counts go to docs/reliability.md.
faults: $(INSTALLED)
	mkdir -p logs
	FAULTS_COUNTS=$(CURDIR)/logs/faults.json python -m pytest tests/faults$(if $(PART),/test_$(PART).py)
	python tests/faults/table.py logs/faults.json docs/reliability.md

# With the oldest PyTorch that pyproject.toml allows, in an environment of its own.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

# The image for Docker, and for Apptainer; docs/gpu-workstation.md tells more.
image sif:
	containers/build $@

test-containers: $(INSTALLED)
	python -m pytest -rs $(IN_CONTAINERS)

test-slurm: $(INSTALLED)
	python -m pytest -rs tests/slurm

bench: $(INSTALLED) $(PEER)/installed
	python -m benchmarks --peer $(PEER)/bin/python

# Whether a GPU computes what is promised, and how fast; `make gpu-check DEVICE=cpu TINY=1` rehearses it without one.
gpu-check: $(INSTALLED)
	python -m benchmarks.gpu --device $(DEVICE) $(if $(TINY),--tiny)

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	snakemake --lint
	mypy moonshine

format: $(INSTALLED)
	ruff check --fix .
	ruff format .
	snakefmt workflow

# The tables of docs/parameters.md, from the docstrings of the schema.
docs: $(INSTALLED)
	python -m docs.make_parameters

MERGED := dvc.lock merge=dvc-lock

# After this, git brings artefacts and Snakemake's view along at every switch of branches and merge.
hooks:
	git config core.hooksPath .githooks
	git config merge.dvc-lock.driver '.githooks/merge-dvc-lock %O %A %B'
	mkdir -p "$$(git rev-parse --git-path info)"
	cd "$$(git rev-parse --git-path info)" && grep -qsx '$(MERGED)' attributes || echo '$(MERGED)' >> attributes

# Needs uv, which resolves for every platform at once; pip installs what it wrote.
lock:
	for part in runtime development; do \
		uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
			--custom-compile-command "make lock" requirements/$$part.in -o requirements/$$part.lock || exit 1; \
	done

$(INSTALLED): requirements/runtime.lock requirements/development.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --requirement requirements/runtime.lock --requirement requirements/development.lock
	pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(OLDEST)/installed: requirements/oldest.txt requirements/runtime.lock requirements/development.lock pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	grep -hvE '^(torch|triton|nvidia-|cuda-)' requirements/runtime.lock requirements/development.lock | \
		$(OLDEST)/bin/pip install --quiet --requirement requirements/oldest.txt --requirement /dev/stdin
	$(OLDEST)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# torchdistill in an environment of its own, which sees the PyTorch of .venv, so that both sides have the same.
$(PEER)/installed: $(INSTALLED)
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/pip install --quiet --no-deps torchdistill==1.1.5
	python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(PEER)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/beside.pth
	touch $@
