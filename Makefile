# Every target works on a fresh machine with python3.11 and make: it builds its own virtual environment.

PYTHON ?= python3.11
DEMO := .venv-demo
TEST := .venv-test
TORCH := .venv-torch
DOCS := .venv-docs
EXAMPLE := examples/01_first_merge
SOURCES := pyproject.toml
PYTEST := pytest -n auto --dist worksteal --durations=12

.PHONY: demo test test-slow test-torch test-all test-whole docs dist-check lint clean

ASSEMBLE := $(DEMO)/bin/mal-graph assemble --data $(EXAMPLE)/data.npz --calibrate $(EXAMPLE)/calib.npz --force

# Four pairs by the way that comes nearest to the ensemble, then aligned weights along lambda, as in the paper.
demo: $(DEMO)/ready
	$(DEMO)/bin/mal-graph match $(EXAMPLE)/mlp_a.onnx $(EXAMPLE)/mlp_b.onnx
	$(ASSEMBLE) $(EXAMPLE)/tuned_a.onnx $(EXAMPLE)/tuned_b.onnx -o $(DEMO)/tuned.onnx
	$(ASSEMBLE) $(EXAMPLE)/twin_a.onnx $(EXAMPLE)/twin_b.onnx -o $(DEMO)/twin.onnx
	$(ASSEMBLE) $(EXAMPLE)/mlp_a.onnx $(EXAMPLE)/mlp_b.onnx -o $(DEMO)/mlp.onnx
	$(ASSEMBLE) $(EXAMPLE)/cnn_a.onnx $(EXAMPLE)/cnn_b.onnx -o $(DEMO)/cnn.onnx
	$(DEMO)/bin/mal-graph sweep $(EXAMPLE)/twin_a.onnx $(EXAMPLE)/twin_b.onnx --data $(EXAMPLE)/data.npz --lambdas 0:1:0.1

# The fast half, without torch.
test: $(TEST)/ready
	$(TEST)/bin/python -m $(PYTEST) -m "not slow and not torch and not whole"

# The other half, beside the extras: the laws that take long hold with the fast assignment solver too.
test-slow: $(TORCH)/ready
	$(TORCH)/bin/python -m $(PYTEST) -m "slow and not torch and not whole"

test-torch: $(TORCH)/ready
	$(TORCH)/bin/python -m $(PYTEST) -m "torch and not whole"

# Every test, each of them once.
test-all: test test-slow test-torch

# The cases of laws that those above stand for: an hour more.
test-whole: $(TORCH)/ready
	$(TORCH)/bin/python tools/run_whole_laws.py

# The pages, with the reference made from the code, and the notebook as a reader runs it.
docs: $(DOCS)/ready
	$(DOCS)/bin/jupyter-execute examples/05_notebook/first_merge.ipynb
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet -f docs/mkdocs.yml < /dev/null

# Wheel and source distribution, outside the checkout.
dist-check:
	$(PYTHON) tools/check_distribution.py

lint: $(TORCH)/ready
	$(TORCH)/bin/ruff format --check .
	$(TORCH)/bin/ruff check .
	$(TORCH)/bin/mypy
	$(TORCH)/bin/python tools/measure_house.py --check

$(DEMO)/ready: $(SOURCES)
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet -e .
	touch $@

$(TEST)/ready: $(SOURCES)
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install --quiet -e ".[test]"
	touch $@

$(DOCS)/ready: $(SOURCES)
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -e ".[docs]"
	touch $@

# torch is pinned in the test requirements alone; any version from 2.13 on may be used with the package.
$(TORCH)/ready: $(SOURCES) tests/requirements-torch.txt
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet -r tests/requirements-torch.txt
	$(TORCH)/bin/python -m pip install --quiet -e ".[dev,fast,torch]"
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(TORCH) $(DOCS) docs/site
