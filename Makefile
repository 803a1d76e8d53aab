# Every target installs what it needs into $(VENV) on first use, and not again until pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV ?= .venv
TORCH ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow check bench bench-gpu ui clean environment

help:
	@echo "make setup      install everything into $(VENV) (takes minutes; every target below does it on first use)"
	@echo "make train      train on the built-in corpus, beside its baselines; ARGS=\"regularizer=m3 seed=2\" overrides options"
	@echo "make test       run the tests; ARGS=\"tests/parity -x\" chooses"
	@echo "make test-slow  run the longer demonstrations"
	@echo "make check      lint, formatting, types and import directions: what CI runs beside the tests"
	@echo "make bench      what runs cost, beside plain versions; ARGS=\"train/mmlatch --rounds 3\" chooses"
	@echo "make bench-gpu  the tests and figures of a GPU, in less than six minutes"
	@echo "make ui         open the MLflow UI over outputs/; ARGS=\"--port 5001\""
	@echo "make clean      remove caches and build leftovers; never runs, stores or $(VENV)"
	@echo
	@echo "PYTHON=python3.12   the Python (3.11 to 3.13) that makes the environment; default python3"
	@echo "VENV=FOLDER         another environment, for example a conda environment's folder; default .venv"
	@echo "TORCH=cpu           another PyTorch build: cpu, cu126, ...; default the package index's; remembered in the environment"

setup: environment
	@echo "$(VENV) is ready. Type next:"
	@echo "  make train$(if $(filter-out .venv,$(VENV)), VENV=\"$(VENV)\")"
	@if [ -d "$(VENV)/conda-meta" ]; then enter=conda\ activate; path="$(VENV)"; \
	else enter=source; path="$(VENV)/bin/activate"; fi; \
	case "$$path" in *' '*) path="\"$$path\"";; esac; \
	echo "or, to stay in the environment:"; echo "  $$enter $$path && python train.py"

train: environment
	@"$(VENV)/bin/python" train.py $(ARGS)

test: environment
	@"$(VENV)/bin/python" -m pytest -n auto --maxprocesses=8 --dist=worksteal $(ARGS)

test-slow: environment
	@"$(VENV)/bin/python" -m pytest -m slow --timeout=1800 $(ARGS)

check: environment
	@"$(VENV)/bin/python" -m ruff check .
	@"$(VENV)/bin/python" -m ruff format --check .
	@"$(VENV)/bin/python" -m mypy
	@"$(VENV)/bin/lint-imports"

bench: environment
	@"$(VENV)/bin/python" -m benchmarks $(ARGS)

bench-gpu: environment
	@"$(VENV)/bin/python" -m benchmarks.gpu $(ARGS)

ui: environment
	@"$(VENV)/bin/python" -m mmsa.cli ui $(ARGS)

clean:
	@find . \( -path ./.git -o -path ./.venv -o -path "./$(VENV)" -o -path ./outputs \) -prune \
		-o -type d -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info

# The stamp holds the PyTorch build and a checksum of the requirements and the place, so neither a switch of branches nor
# a moved checkout goes unnoticed. A shell test instead of a make rule because make cannot take a VENV with spaces.
environment:
	@stop() { echo "$$1" >&2; exit 1; }; \
	stamp="$(VENV)/.mmsa-installed"; python="$(VENV)/bin/python"; \
	torch="$(TORCH)"; [ -n "$$torch" ] || torch=`sed -n 1p "$$stamp" 2>/dev/null`; \
	content=`{ pwd; echo "$$torch"; cat pyproject.toml constraints.txt; } | cksum`; \
	if [ -x "$$python" ] && [ "`sed -n 2p "$$stamp" 2>/dev/null`" = "$$content" ]; then exit 0; fi; \
	if [ -x "$$python" ]; then name="VENV=$(VENV)"; else name="PYTHON=$(PYTHON)"; python="$(PYTHON)"; fi; \
	version=`"$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null` \
		|| stop "mmsa needs Python 3.11, 3.12 or 3.13, and $$name does not start: type  make setup PYTHON=python3.12"; \
	case "$$version" in 3.11|3.12|3.13) ;; *) \
		stop "mmsa needs Python 3.11, 3.12 or 3.13, and $$name is Python $$version: type  make setup PYTHON=python3.12  with one that you have";; \
	esac; \
	if [ ! -x "$(VENV)/bin/python" ]; then \
		"$$python" -c 'import venv, ensurepip' 2>/dev/null \
			|| stop "$$name (Python $$version) lacks the venv module: install it (Debian, Ubuntu: apt install python$$version-venv) or name another PYTHON="; \
		"$$python" -m venv "$(VENV)" || stop "The environment $(VENV) could not be made."; \
		python="$(VENV)/bin/python"; \
	fi; \
	"$$python" -c 'import pip' 2>/dev/null \
		|| stop "$(VENV) has no pip: remove the folder and type the same again, or name another VENV="; \
	echo "Installing into $(VENV) (Python $$version): 1 to 3 GB, which takes minutes ..."; \
	set -- "$$python" -m pip install -qq --disable-pip-version-check -c constraints.txt; \
	if [ -n "$$torch" ]; then \
		"$$@" --no-deps --index-url "https://download.pytorch.org/whl/$$torch" \
			"`sed -n 's/^torch==.*/&/p' constraints.txt`+$$torch" \
			|| stop "PyTorch's own index has no such build for this machine: TORCH=$$torch; see https://pytorch.org/get-started/locally"; \
		set -- "$$@" --extra-index-url "https://download.pytorch.org/whl/$$torch"; \
	fi; \
	"$$@" -e ".[dev]" || stop "The installation did not finish (see above): type the same again to go on."; \
	printf '%s\n' "$$torch" "$$content" > "$$stamp"
