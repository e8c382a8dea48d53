# Everything here is also possible without make: see "Without make" in README.md.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lab search clean

demo: $(READY)  ## train on MiniVOC for five minutes and show what is forgotten
	$(BIN)/sparcl demo --out demo-results

test: $(READY)  ## unit tests
	$(BIN)/python -m pytest

lab: $(READY)   ## open the notebooks
	$(BIN)/jupyter lab notebooks

search: $(READY)  ## search learning rates and weights on MiniVOC again (about an hour on two cores)
	$(BIN)/python benchmarks/minivoc_search.py

# Made anew when the list of dependencies changes; otherwise nothing is done.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparcl needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[course,search,test]'
	touch $(READY)

clean:          ## remove the environment and the demo's results
	rm -rf $(VENV) demo-results
