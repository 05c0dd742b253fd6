# Every target but setup runs inside .venv; tests and the demo need root, because they make namespaces.
# The system's interpreter: what is executed as root should be the package manager's, and its headers are what we install.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL_SCRIPTS := bootstrap .ci/run $(wildcard vagrant/*.sh)

# What is tested of our own plugins at level hardened and without a zygote: once more at level mediated, and once more
# with a zygote (tests/warm.py).
ONCE_MORE := $(wildcard tests/netns/test_plugin_*.py tests/netns/test_faults_*.py) tests/interop/test_differential.py \
	tests/interop/test_podman.py tests/interop/test_containerd.py tests/interop/test_takeover.py

.PHONY: setup demo test lint type unit warm escape interop bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py $(wildcard native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m compileall -q cnisandbox plugins
	touch $@

demo: setup
	$(BIN)/cnisandbox demo

lint: setup
	$(BIN)/ruff check cnisandbox plugins native tests benchmarks setup.py
	shellcheck $(SHELL_SCRIPTS)

type: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest tests/unit tests/property tests/style

test: lint type
	$(BIN)/pytest
	CNISANDBOX_LEVEL=mediated $(BIN)/pytest $(ONCE_MORE)
	CNISANDBOX_WARM=1 $(BIN)/pytest $(ONCE_MORE)

warm: setup
	CNISANDBOX_WARM=1 $(BIN)/pytest $(ONCE_MORE)

escape interop: setup
	$(BIN)/pytest tests/$@

bench: setup
	$(BIN)/python benchmarks/bench.py

docs: setup
	$(BIN)/pytest tests/style

clean:
	rm -rf $(VENV) build *.egg-info cnisandbox/*.so cnisandbox/launcher cnisandbox/_native.c cnisandbox/_nftables.c
