# Everything runs in the project's own .venv, which each target makes and keeps up to date as far as it needs.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
PYTEST = $(shell grep '^pytest==' requirements-full.txt)

.PHONY: help setup setup-demo test demo demo-det evidence report zoo lint clean

help:
	@echo 'make setup     set up .venv with mmcv'"'"'s operators, which detectors need, compiled once'
	@echo '               (PYTHON=python3.11 picks another Python, MMCV_WHEEL=mmcv.whl takes a ready wheel)'
	@echo 'make test      run the tests'
	@echo 'make demo      train a classifier at all depths on handwritten digits'
	@echo 'make demo-det  train a detector at all depths on drawn shapes'
	@echo 'make evidence  the small-scale study of the paper, three seeds: over an hour on two cores, resumable,'
	@echo '               BUDGET=10 stops beginning trainings after ten minutes'
	@echo 'make report    measure what each depth costs on this machine, into docs/benchmarks/: 15 minutes, resumable;'
	@echo '               DEVICE=cuda is its GPU, ONLY="train profile" runs these parts again, SMALL=1 tries it out'
	@echo 'make zoo       hold one config of every folder of mmdet, mmsegmentation and mmrotate to stock, for'
	@echo '               docs/zoo.md: about half an hour on one core, resumable; ONLY=mmdet/atss takes one folder'
	@echo 'make docs      build the manual into docs/_build/html and run its tutorials (Python 3.11 or 3.12)'
	@echo 'make lint      check style and formatting with ruff'
	@echo 'make clean     delete caches and build artefacts, but not .venv'

setup setup-demo:
	@command -v '$(PYTHON)' >/dev/null || { echo 'setup: $(PYTHON) not found: install Python 3.10, 3.11 or 3.12 (Debian: apt install python3 python3-venv python3-dev g++)' >&2; exit 1; }
	@'$(PYTHON)' tools/setup_env.py $(if $(filter setup-demo,$@),demo)

test: setup
	$(VENV_PYTHON) -m pytest

demo: setup-demo
	$(VENV_PYTHON) tools/demo.py

demo-det: setup
	$(VENV_PYTHON) tools/demo_det.py

evidence: setup
	$(VENV_PYTHON) tools/evidence.py $(if $(BUDGET),--budget $(BUDGET))

.PHONY: docs
docs: setup .venv/docs-packages
	$(VENV_PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'The manual: docs/_build/html/index.html'

.venv/docs-packages: setup.py | setup
	$(VENV_PYTHON) -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[docs]'
	@touch $@

report: setup-demo .venv/report-packages
	$(VENV_PYTHON) tools/report_device.py --device $(or $(DEVICE),cpu) $(if $(ONLY),--only $(ONLY)) $(if $(SMALL),--small)

.venv/report-packages: setup.py | setup-demo
	$(VENV_PYTHON) -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[export]' '$(PYTEST)'
	@touch $@

zoo: setup
	$(VENV_PYTHON) tests/zoo_table.py $(ONLY)

lint: setup
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check

clean:
	rm -rf build dist docs/_build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
