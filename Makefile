# make demo    set up what training needs, run the demo, name the page to open
# make test    set up what development needs; linter, types, all tests
# make coverage   the tests with branch coverage of edgead/, which takes a third longer
# make lint    linter and types alone
# make bench   benchmarks; on an idle machine
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

.PHONY: demo test coverage lint bench test-gpu bench-gpu gpu-report clean
.DELETE_ON_ERROR:

demo: .venv/installed-train
	$(BIN)/edgead demo --out demo

# A process for each core, up to 4, with one thread of torch each, since more threads than cores are slower than one.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder --benchmark-disable

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

bench: .venv/installed-dev
	$(BIN)/python -m pytest benchmarks --ignore=benchmarks/gpu

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
	rm -rf .venv demo .coverage .coverage.* .benchmarks .mypy_cache .pytest_cache .ruff_cache

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	    echo "edgead needs Python 3.10 to 3.13, this is $$($(PYTHON) --version 2>&1): PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# The files .venv/installed-train and .venv/installed-dev say that an extra is installed; they are older than a changed pyproject.toml.
# dev has all of train.
.venv/installed-train .venv/installed-dev: .venv/installed-%: pyproject.toml | .venv/made
	$(PIP) install --editable '.[$*]'
	@$(BIN)/python -c 'import cv2' || { \
	    echo "OpenCV lacks libraries of the system: sudo apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $(@:dev=train) $@
