# Everything here is also possible without make: see "Without make" in README.md.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-lab lab notebooks search clean

demo: $(READY)  ## train on MiniVOC for five minutes and show what is forgotten
	$(BIN)/sparcl demo --out demo-results

test: $(READY)  ## unit tests, then every notebook: run, and its outputs compared
	$(BIN)/python -m pytest
	$(FIXED) $(BIN)/python -m pytest notebooks --nbval --nbval-current-env -W default \
		--nbval-sanitize-with tests/nbval_sanitize.cfg \
		--nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120

test-lab: $(READY)  ## the notebooks in a real JupyterLab, driven by Chromium (Debian's package)
	$(BIN)/python -m pip install --quiet 'playwright>=1.49,<2'
	$(BIN)/python -m pytest tests/lab

notebooks: $(READY)  ## make the notebooks from notebooks/sources; RETRAIN=1 trains every run anew
	$(BIN)/python -m sparcl_lib.course.build $(if $(RETRAIN),--retrain)

lab: $(READY)   ## open the notebooks
	$(BIN)/jupyter lab notebooks

search: $(READY)  ## search learning rates and weights on MiniVOC again (52 minutes on two cores)
	$(BIN)/sparcl sweep --dataset minivoc --task 6-4 --trials 14 --space benchmarks/studies/minivoc_search/space.yaml \
		--method FT,Joint,LwF,LwF-MC,ILT,EWC,RW,PI,CIL,MiB,PLOP,SDR,SDR+MiB,SSUL-like,MiB+EWF \
		--storage runs/search.journal --store runs/minivoc --out benchmarks/studies/minivoc_search

# As when the outputs were saved: sparcl_lib/course/build.py.
FIXED := OMP_NUM_THREADS=1 PYTHONHASHSEED=0 IPYKERNEL_CELL_NAME='<cell>'

# Made anew when the list of dependencies changes; otherwise nothing is done.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparcl needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[course,search,test]'
	touch $(READY)

clean:          ## remove the environment and the demo's results
	rm -rf $(VENV) demo-results
