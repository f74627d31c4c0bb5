# What can be done here; `make help` (or just `make`) prints the list.
#
# Variables: ARGS    handed to the program that the target runs: make lab ARGS=--check, make test ARGS="-k uts"
#            PYTHON  the Python that .venv is made of, when the one found is not the one wanted

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,grading,vm
BUILD := hatchling editables
ARGS ?=
PYTEST_ARGS ?=
LOCK_PYTHON ?= /usr/bin/python3.11

# The distribution's own Python before any other. What a version manager puts first in PATH is a shell script that costs 85 ms
# at every start, and lives where unprivileged users (the rootless tests, the sandbox) may not look; so the last resort is asked
# for the interpreter that it stands for.
PYTHON ?= $(shell for python in /usr/bin/python3 /usr/bin/python3.1[1-9] python3; do "$$python" -Ic \
    'import sys, ensurepip, venv; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null && break; done)

SOURCES := $(shell find minicontainer labs -name '*.py' -not -path '*/course/*' 2>/dev/null)

# Everything is installed when this file is newer than what says what to install. It holds the directory it was made in: a
# virtual environment holds absolute paths, so a checkout that was copied or moved must make its own.
INSTALLED := $(VENV)/installed-in
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
MOVED := moved
endif

.PHONY: help setup lab test test-v2 test-vm lint format notebooks book bench man lock clean moved
.DELETE_ON_ERROR:

help: ## print this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/make \1~\2/p' Makefile | while IFS='~' read -r target text; do \
	    printf '%-16s %s\n' "$$target" "$$text"; done

setup: $(INSTALLED) $(VENV)/compiled ## install what is missing: system packages through apt, .venv with everything else

lab: setup ## check this host and open the notebooks in JupyterLab (ARGS=--check: only see that they open)
	@$(BIN)/minicontainer check || { \
	    echo "make lab: this host lacks what the labs need: see the lines above" >&2; exit 1; }
	@$(BIN)/python -m labs.serve $(ARGS)

# pytest comes last and is the last to print.
test: setup lint ## lint, then the whole test suite (ARGS="-k uts" goes to pytest)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) $(ARGS)

test-v2: setup ## the tests that depend on the kernel, in a VM with cgroup v2 (LAB_CGROUP=v1 or hybrid: with those)
	@$(BIN)/python -m vm.guest_tests $(ARGS)

test-vm: setup ## a whole life of the lab's VM, and tests in it (LAB_VM=qemu: without Vagrant); 30 minutes at most
	@$(BIN)/python -m vm.machine_tests

lint: setup ## ruff and mypy --strict
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary

format: setup ## let ruff put the code in order
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

notebooks: setup ## write notebooks/ anew from labs/course/
	@$(BIN)/labs build $(ARGS)

book: setup ## the whole course as a static site with outputs, in build/book (ARGS="03 05": only these labs)
	@$(BIN)/labs book $(ARGS)

bench: setup ## measure the engine beside its peers on this host
	@$(BIN)/python -m benchmarks $(ARGS)

man: setup ## write the pages of the manual to build/man/man1
	@$(BIN)/minicontainer man --directory build/man/man1

# constraints.txt must hold for every Python that we support, so it is made with the oldest: Debian 12's 3.11.2. To the digit:
# there are packages whose newest version wants 3.11.5.
lock: ## write constraints.txt anew, with the newest versions that work together
	@rm -rf build/lock && $(LOCK_PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -q --disable-pip-version-check $(BUILD) '.[$(EXTRAS)]'
	@{ echo '# What `make setup` installs, to the version, for Python 3.11 and later. Written by `make lock`; not edited by hand.'; \
	    build/lock/bin/python -m pip freeze --disable-pip-version-check --exclude minicontainer; } >build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/lock

clean: ## remove what make, pytest and the linters made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find minicontainer labs tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The build backend is installed first and used from there, so that it too is pinned and pip makes no second environment.
$(INSTALLED): pyproject.toml constraints.txt vm/provision.sh minicontainer/cli/launcher.py $(MOVED)
	@vm/provision.sh || echo "make setup: going on without them; 'minicontainer check' says what that costs" >&2
	@test -n "$(PYTHON)" || { \
	    echo "make setup: no Python 3.11 or later that can make a venv; say which with PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv $(if $(MOVED),--clear) $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(BUILD)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@$(BIN)/python -I minicontainer/cli/launcher.py $(BIN)
	@printf '%s\n' "$(CURDIR)" >$@

# Compiled here, once, because a start of the command must not pay for it: pip compiles what it copies, but our packages are
# imported from this checkout, where an unprivileged user or PYTHONDONTWRITEBYTECODE would compile at every start. By their
# absolute paths, which are compiled in: others are put right in every function, at every import.
$(VENV)/compiled: $(INSTALLED) $(SOURCES)
	@$(BIN)/python -m compileall -q $(abspath $(SOURCES))
	@touch $@
