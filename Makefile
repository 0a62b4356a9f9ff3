# Everything runs in .venv, which is made from nothing but Python 3.11.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := bundles/anomalyclip_demo
# Phantoms compared with normal phantoms by an encoder of real photographs.
NORMALS_DEMO := runs/own_normals
# MONAI Label's server has an environment of its own: it needs pydicom 2, this package pydicom 3.
LABEL_VENV := .venv-label
LABEL_RUN := $(LABEL_VENV)/bin/python
LABEL_DEMO ?= runs/label_demo
LABEL_PORT ?= 8000
LABEL_CONSTRAINTS ?= requirements/label-py311-torch2.14.txt

.PHONY: gpu-wheels gpu-acceptance demo screenshots quick test test-minimum docs lint install dist bundle-zip clean label-env label-requirements label-demo test-label notebooks test-notebooks

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: install
	$(RUN) -m monai.bundle run training --config_file $(DEMO)/configs/train.json --bundle_root $(DEMO)
	$(RUN) -m monai_anomalyclip inspect $(DEMO)/data/inference
	$(RUN) -m monai_anomalyclip predict $(DEMO)/data/inference -o runs/predict --bundle $(DEMO) --force
	$(RUN) -m monai_anomalyclip.demo.own_normals $(NORMALS_DEMO)
	$(RUN) -m monai_anomalyclip predict $(NORMALS_DEMO)/inputs -o $(NORMALS_DEMO)/results --normals $(NORMALS_DEMO)/normals --keep-names --force
	@echo
	@echo "Done. Open runs/predict/report.html; maps, masks, overlays and DICOM results lie beside it."
	@echo "The same without any tuning, compared with normal phantoms: $(NORMALS_DEMO)/results/report.html"

# Before each commit: the unit tests of every package, and ruff. What tests/conftest.py lists as slow is for `make test`.
quick: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest -m "not slow and not nightly and not notebooks and not label_server"

test: install
	$(RUN) -m pytest

# Executes each notebook from a clean copy and writes its outputs back.
notebooks: install
	$(RUN) notebooks/execute.py

test-notebooks: install
	$(RUN) -m pytest -m notebooks --dist load tests/notebooks

label-env: $(LABEL_VENV)/.installed

label-requirements: $(LABEL_VENV)/.requirements

$(LABEL_VENV)/.requirements: requirements/label.txt requirements/label-no-deps.txt $(LABEL_CONSTRAINTS)
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_RUN) -m pip install --quiet --disable-pip-version-check -r requirements/label.txt -c $(LABEL_CONSTRAINTS)
	$(LABEL_RUN) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/label-no-deps.txt
	touch $@

$(LABEL_VENV)/.installed: $(LABEL_VENV)/.requirements pyproject.toml
	$(LABEL_RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# A server of our own app on phantoms, with OHIF where Orthanc is installed: open http://127.0.0.1:8000.
label-demo: label-env
	test -f $(DEMO)/models/model.pt || $(LABEL_RUN) -m monai.bundle run training --config_file $(DEMO)/configs/train.json --bundle_root $(DEMO)
	test -d $(LABEL_DEMO)/app || $(LABEL_RUN) -m monai_anomalyclip label-app $(LABEL_DEMO)/app --bundle $(DEMO)
	PATH="$(abspath $(LABEL_VENV))/bin:$$PATH" $(LABEL_RUN) -m monai_anomalyclip.demo.archive $(LABEL_DEMO) -- \
		$(LABEL_RUN) -m monailabel.main start_server --host 127.0.0.1 --port $(LABEL_PORT) --app $(LABEL_DEMO)/app --studies {studies}

# Starts real servers; of Orthanc (apt-get install orthanc orthanc-dicomweb) it runs what is there.
test-label: install label-env
	$(RUN) -m pytest -m "label_server and not nightly"

# The documentation as a site, warnings as errors, without the network: open build/site/index.html.
docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# The pictures of pages in docs/images, made anew; needs Chromium and what `make demo` tuned.
screenshots: install
	$(RUN) -m tools.screenshots

# For a machine with a GPU, Python 3.12 and torch, but without a network: what it lacks, in a folder to take there.
GPU_WHEELS ?= build/gpu-wheels
GPU_PYTHON ?= python3.12
gpu-wheels: install
	$(RUN) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d $(GPU_WHEELS) -r requirements/gpu-acceptance.txt

# There: installs the wheels, measures for at most 8 minutes, prints goals, figures and verdicts, and writes a record.
gpu-acceptance:
	$(GPU_PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps $(GPU_WHEELS)/*.whl
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu_acceptance.py --device cuda --json benchmarks/results/gpu-acceptance.json

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/hadolint Dockerfile

# What others install: dist/*.whl and dist/*.tar.gz.
dist: install
	$(RUN) -m build --no-isolation

# The demonstration bundle, tuned by `make demo`, as the MONAI model zoo hands bundles out; BUNDLE=DIR packs another one.
bundle-zip: BUNDLE = $(DEMO)
bundle-zip: install
	$(RUN) -m monai_anomalyclip.bundles.zoo_archive $(BUNDLE) -o dist --overwrite

# The tests with the oldest dependencies that pyproject.toml admits, in an environment of its own. Not part of CI.
test-minimum:
	$(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/python -m pip install --quiet --disable-pip-version-check -c requirements/minimum.txt -e ".[dev]"
	.venv-minimum/bin/python -m pytest $(TESTS)

clean:
	rm -rf $(VENV) $(LABEL_VENV) .venv-minimum build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache runs notebooks/runs bundles/*/runs $(DEMO)/data
