# Two commands do everything: `make run` and `make test`. `make peers` (root, Debian) installs what the deeper tests talk to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PORT ?= 2525
JOBS ?= 4

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
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

peers:
	@tools/install-peers

bench: $(STAMP)
	@$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
