# make demo    set up what training needs, run the demo, name the page to open
# make test    set up what development needs; linter, types, all tests
# make coverage   the tests with branch coverage of edgead/, which takes a third longer
# make lint    linter and types alone
# make docs    the documentation as a site in site/; a dead link or a warning is an error
# make bench   benchmarks; on an idle machine. The times are kept in .benchmarks/
# make bench-compare   the same, and an error if one takes over 25 % longer than in the last run of make bench; BENCH=FILES
# make test-gpu, make bench-gpu   tests and benchmarks that need an NVIDIA GPU, with the TensorRT that is installed
# make gpu-report   what holds on the GPU of this machine, in under 8 minutes, without network and .venv; OUT=DIR, PYTHON=...
# make clean   remove what these made, but not your runs and bundles
#
# PYTHON=python3.12 make demo   chooses the Python (3.10 to 3.13) that .venv is made with.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Images of containers often set it; then each of the hundreds of processes of the tests compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage lint docs bench bench-compare test-gpu bench-gpu gpu-report clean
.DELETE_ON_ERROR:

demo: .venv/installed-train
	$(BIN)/edgead demo --out demo

# A process for each core, up to 4, with one thread of torch each, since more threads than cores are slower than one.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder --max-worker-restart 0 --benchmark-disable

test: lint
	$(PYTEST)

coverage: .venv/installed-dev
	$(PYTEST) --cov --cov-report=term

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/sizes.py
	$(BIN)/python .ci/words.py
	$(BIN)/mypy --num-workers 2

# The variable switches off an advertisement.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "open site/index.html"

BENCH ?= benchmarks --ignore=benchmarks/gpu
bench: .venv/installed-dev
	$(BIN)/python -m pytest $(BENCH) --benchmark-autosave

# The smallest time of each benchmark, which other programs disturb least.
bench-compare: .venv/installed-dev
	@ls .benchmarks/*/*.json > /dev/null 2>&1 || { echo "no earlier run in .benchmarks: run make bench first"; exit 1; }
	$(BIN)/python -m pytest $(BENCH) --benchmark-compare --benchmark-compare-fail=min:25%

# A test that skips for want of a GPU has not run, which is a failure here.
test-gpu: .venv/installed-dev
	EDGEAD_REQUIRE_GPU=1 $(BIN)/python -m pytest -rs tests/gpu

bench-gpu: .venv/installed-dev
	$(BIN)/python -m pytest -rs benchmarks/gpu

# With the packages that $(PYTHON) has, because a bare GPU machine has no network to install others from.
OUT ?= gpu-report
gpu-report:
	$(PYTHON) benchmarks/gpu_report.py $(OUT)

clean:
	rm -rf .venv demo site .coverage .coverage.* .benchmarks .mypy_cache .pytest_cache .ruff_cache

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	    echo "edgead needs Python 3.10 to 3.13, this is $$($(PYTHON) --version 2>&1): PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# The files .venv/installed-train and .venv/installed-dev say that an extra is installed; they are older than a changed pyproject.toml.
# dev has all of train. Most modules of the packages are never imported; the others are compiled once, when they are.
.venv/installed-train .venv/installed-dev: .venv/installed-%: pyproject.toml | .venv/made
	$(PIP) install --no-compile --editable '.[$*]'
	@$(BIN)/python -c 'import cv2' || { \
	    echo "OpenCV lacks libraries of the system: sudo apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $(@:dev=train) $@
