# Every target makes the environment itself if it is missing, and says what it does.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
EXAMPLES ?= 20000

.PHONY: help demo test quick faults fuzz check bench notebook licences audit lock clean

help:
	@echo "make demo      train a small French model on this machine and talk to it (minutes);"
	@echo "               SEED=3 trains from another seed, into models/demo-seed-3"
	@echo "make test      run the tests"
	@echo "make quick     run the tests that take less than a tenth of a second each"
	@echo "make faults    inject faults, and print the table of what was tried"
	@echo "make fuzz      give the readers of files odd input, EXAMPLES=20000 inputs each"
	@echo "make check     format, lint, types"
	@echo "make bench     run the benchmarks that need no GPU"
	@echo "make notebook  open JupyterLab"
	@echo "make licences  list the licence of every installed package"
	@echo "make audit     look for known vulnerabilities of the pinned packages (needs the internet)"
	@echo "make lock      write requirements-hashed.txt anew, after a change of requirements.txt"
	@echo "make clean     remove the demo's data and models"

demo: $(VENV)/.ready
	@echo "Running the three notebooks on the demo corpus: data, pretraining, fine-tuning, test."
	@$(RUN) -m dimgpt demo $(if $(SEED),--seed $(SEED))

test: $(VENV)/.ready
	@echo "Running the tests."
	@$(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.ready
	@echo "Running the quick tests."
	@$(RUN) -m pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile

faults: $(VENV)/.ready
	@echo "Injecting faults."
	@$(RUN) -m pytest tests/faults -n 2 --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/.ready
	@echo "Fuzzing with $(EXAMPLES) inputs for each reader."
	@DIMGPT_FUZZ_EXAMPLES=$(EXAMPLES) $(RUN) -m pytest tests/fuzz

check: $(VENV)/.ready
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

bench: $(VENV)/.ready
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "$$script"; $(RUN) "$$script" || exit 1; done

notebook: $(VENV)/.ready
	@$(RUN) -m jupyterlab

licences: $(VENV)/.ready
	@$(RUN) -m piplicenses --order=license

audit: $(VENV)/.ready
	@$(RUN) -m pip_audit --strict -r requirements.txt

lock: $(VENV)/.ready
	@$(RUN) -m uv pip compile requirements.txt --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --output-file requirements-hashed.txt

clean:
	rm -rf data/demo models/demo models/demo-chat models/demo-runs models/demo-seed-*

$(VENV)/.ready: requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "$(PYTHON) is older than Python 3.11: run make PYTHON=python3.11 (or newer)"; exit 1; }
	@echo "Making $(VENV) and installing the pinned packages (1 to 2 GB on a CPU, more with CUDA)."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
