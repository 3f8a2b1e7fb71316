# make demo: installs everything and runs the whole path on the embedded miniature.  make test: the tests.
# make survival: faults struck on purpose; writes reports/survival/README.md.  make chaos: a hundred at random; reports/chaos.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Some containers forbid Python to keep bytecode; torch would then be compiled anew in every process.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install demo test test-slow test-cluster test-exporters survival chaos speed scale docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: install
	@$(BIN)/timbre-ray run sweeps/demo.yaml $(if $(CLIPS),--clips $(CLIPS))

# Each in its own process: Tune keeps state of an ended Ray session.
OF_NODES := tests/integration/test_two_nodes.py tests/integration/test_unfit_node.py

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(addprefix --ignore ,$(OF_NODES))
	for one in $(OF_NODES); do $(BIN)/python -m pytest -m "not slow" $$one || exit 1; done

test-slow: install
	$(BIN)/python -m pytest -m slow --ignore tests/cluster

# ray up onto hosts in network namespaces of this machine, as root; what was typed and printed: reports/cluster/ray-up.log.
test-cluster: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test,cluster]'
	$(BIN)/python -m pytest -rs tests/cluster

# The exporters' own packages, in an environment of their own: Aim wants an older filelock than the rest.
test-exporters:
	$(MAKE) install VENV=$(VENV)-exporters
	$(VENV)-exporters/bin/uv pip install --quiet --python $(VENV)-exporters/bin/python wandb mlflow-skinny aim optuna-dashboard
	$(VENV)-exporters/bin/python -m pytest -rs tests/integration/test_real_exporters.py

speed: install
	$(BIN)/python -m benchmarks --out reports/speed

# An hour or so: a real run of Ray Tune over ten thousand stub trials is in it, ended after 25 minutes.
scale: install
	$(BIN)/python -m benchmarks.scale --out reports/scale

survival: install
	$(BIN)/python -m tests.survival --out reports/survival

# 19 faults at trials of the miniature, each kind once, and 81 at stubs; SEED=1 draws others.
chaos: install
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),0) --faults 100 --stubs 81 --out reports/chaos

# The pages of docs/ as a site in site/. After a change of a spec or a command: $(BIN)/python -m docs_tools
docs: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# What was computed stays: store/, results/ and reports/ are nights of work.
clean:
	rm -rf $(VENV) $(VENV)-exporters site
