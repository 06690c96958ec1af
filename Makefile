# make demo, make test and make check set up .venv by themselves and are quick the second time.
# make test runs the quick tests of every package, make test-all all of them.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# two processes with one thread each: most tests are too small for two threads
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
# mkdocs-material's remarks about mkdocs 2, which is not used (pyproject.toml)
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test test-all check docs format table clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/xenomask warmup
	$(BIN)/xenomask demo --out demo_out

test: $(STAMP)
	$(TESTS) -m 'not slow'

test-all: $(STAMP)
	$(TESTS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/mkdocs build --strict
	$(TESTS)

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo_out site
