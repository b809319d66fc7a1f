# Two front doors: `make demo` shows what bluelm does, `make test` proves it. Both begin from a bare Python 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PICTURES ?=

.PHONY: demo test slow check install clean

demo: $(INSTALLED)
	PATH="$(abspath $(BIN)):$$PATH" recipes/demo.sh $(PICTURES)

# Two processes: one for each core of the smallest machine that this is for.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build demo
