# Everything here is also possible without make: see "Without make" in README.md.
PYTHON ?= python3
VENV   ?= .venv

# Where `make test` computes. The last digits of what is trained differ, and tests must not mind:
# own: as the machine likes; sse41, avx2: an older processor's instructions; threads: two of them;
# oldest: the oldest torch and torchvision that pyproject.toml allows, in an environment of its own.
PROCESSORS := own sse41 avx2 threads oldest
SPARCL_TEST_PROCESSOR ?= own
SETTINGS_own     :=
SETTINGS_sse41   := ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41
SETTINGS_avx2    := ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2
SETTINGS_threads := OMP_NUM_THREADS=2
SETTINGS_oldest  :=
ifeq ($(filter $(SPARCL_TEST_PROCESSOR),$(PROCESSORS)),)
$(error SPARCL_TEST_PROCESSOR is $(SPARCL_TEST_PROCESSOR); valid: $(PROCESSORS))
endif
SETTINGS := $(SETTINGS_$(SPARCL_TEST_PROCESSOR))
# Processes that test side by side, each on one thread. With two threads it is one process.
WORKERS ?= $(if $(filter threads,$(SPARCL_TEST_PROCESSOR)),0,2)
ifeq ($(SPARCL_TEST_PROCESSOR),oldest)
VENV   := .venv-oldest
CONSTRAINTS :=
OLDEST := $(shell sed -nE 's/^ *"(torch|torchvision)>=([0-9.]+),.*/\1==\2/p' pyproject.toml)
endif

BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: again demo check test test-units test-notebooks test-processors test-lab lab notebooks site search proof coverage constraints clean

demo: $(READY)  ## train on MiniVOC for five minutes and show what is forgotten
	$(BIN)/sparcl demo --out demo-results

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: test-units test-notebooks  ## unit tests, then every notebook: run, and its outputs compared

test-units: $(READY)
	OMP_NUM_THREADS=1 $(SETTINGS) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-notebooks: $(READY)
	$(FIXED) $(SETTINGS) $(BIN)/python -m pytest notebooks --nbval --nbval-current-env -W default \
		--numprocesses $(WORKERS) --dist loadfile \
		--nbval-sanitize-with tests/nbval_sanitize.cfg \
		--nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120

test-processors:  ## make test for each of $(PROCESSORS): before a release
	for name in $(PROCESSORS); do $(MAKE) test SPARCL_TEST_PROCESSOR=$$name || exit 1; done

test-lab: $(READY)  ## the notebooks in a real JupyterLab, driven by Chromium (Debian's package)
	$(BIN)/python -m pip install --quiet 'playwright>=1.49,<2'
	$(BIN)/python -m pytest tests/lab

notebooks: $(READY)  ## make the notebooks from notebooks/sources; RETRAIN=1 trains every run anew
	$(BIN)/python -m sparcl_lib.course.build $(if $(RETRAIN),--retrain)

again: $(READY)  ## train every run that comes with the course anew, compare, run the chapters on them (a quarter of an hour)
	$(BIN)/python benchmarks/studies/kept_runs_again/every_run.py

lab: $(READY)   ## a working copy of the course in my-course, and JupyterLab on it
	$(BIN)/sparcl course lab

site: $(READY)  ## the pages of the documentation, in docs/site/_build/html; no network needed
	$(BIN)/python docs/site/build_site.py

search: $(READY)  ## search learning rates and weights on MiniVOC again (52 minutes on two cores)
	$(BIN)/sparcl sweep --dataset minivoc --task 6-4 --trials 14 --space benchmarks/studies/minivoc_search/space.yaml \
		--method $$($(BIN)/python -c 'from sparcl_lib.method_table import METHODS; print(*METHODS, sep=",")') \
		--storage runs/search.journal --store runs/minivoc --out benchmarks/studies/minivoc_search

proof: $(READY)  ## all random cases of docs/reliability.md, of which `make test` runs a sample
	$(BIN)/python tests/fuzz.py
	$(BIN)/python tests/damaged_runs.py
	$(BIN)/python tests/kills.py
	$(BIN)/python tests/full_disks.py
	$(BIN)/python tests/many_trainings.py

coverage: $(READY)  ## lines and branches of sparcl_lib that the unit tests run, room by room
	$(BIN)/coverage erase
	for room in tests/test_*.py $(filter-out tests/lab/,$(wildcard tests/*/)); do \
		$(BIN)/coverage run -m pytest -q $$room || exit 1; done
	$(BIN)/coverage combine
	$(BIN)/coverage report

constraints: $(READY)  ## the versions of this environment, for CI: make test CONSTRAINTS=constraints.txt
	{ echo '# What CI installs with, made by `make constraints`.'; $(BIN)/python -m pip freeze --exclude-editable \
		| grep -Ev '^(nvidia-|cuda-|triton=)' | sed 's/+.*//'; } > constraints.txt

# As when the outputs were saved: sparcl_lib/course/build.py.
FIXED := OMP_NUM_THREADS=1 PYTHONHASHSEED=0 IPYKERNEL_CELL_NAME='<cell>'

# pip shows how far it is where someone can see it.
QUIET := $(shell [ -t 2 ] || echo --quiet)

# Made anew when the list of dependencies changes; otherwise nothing is done.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparcl needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'installing about 3 GB of packages, once: minutes, by the network'
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install $(QUIET) --editable '.[dev]' $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(OLDEST)
	touch $(READY)

clean:          ## remove the environment and the demo's results
	rm -rf .venv-oldest $(VENV) demo-results docs/site/_build
