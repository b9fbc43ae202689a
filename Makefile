# Two commands do everything: `make run` and `make test`. `make peers` (root, Debian) installs what the deeper tests talk to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PORT ?= 2525
JOBS ?= 4
MINUTES ?= 6

.PHONY: run test check unit peers bench clean fuzz

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: $(STAMP)
	@$(BIN)/python tools/make_instance.py instance $(PORT) > /dev/null
	@test instance/etc/aliases.db -nt instance/etc/aliases || $(BIN)/postalias -c instance/etc instance/etc/aliases
	@printf '%s\n' "Estafeta listens on 127.0.0.1:$(PORT); the log follows, Ctrl-C stops it." \
	    "Send a first message from another terminal:" "" \
	    "  echo 'First light.' | $(CURDIR)/$(BIN)/sendmail -C $(CURDIR)/instance/etc you@localhost" \
	    "  or: swaks --server 127.0.0.1:$(PORT) --to you@localhost" "" \
	    "It lands in $(CURDIR)/instance/mail/you/new/" ""
	@exec $(BIN)/postfix -c $(CURDIR)/instance/etc start-fg

test: check unit

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

unit: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

peers:
	@tools/install-peers

bench: $(STAMP)
	@$(BIN)/python -m bench $(BENCH)

# MINUTES=6 for each target; what is found lands in tests/unit/fuzz/found
fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	@for target in $$($(BIN)/python -m fuzz list); do echo "== $$target"; \
	    $(BIN)/python -m fuzz $$target -max_total_time=$$(( $(MINUTES) * 60 )) -verbosity=0 2>&1 | grep -A30 'ERROR\|Exception' ; done; \
	    ls -l tests/unit/fuzz/found 2>/dev/null; true

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
