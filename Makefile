# `make` alone explains itself.
.DEFAULT_GOAL := help
.PHONY: help install demo test unit coverage test-all flakes test-ray bench soak lint format docs \
  docs-site prometheus3 helm rules dashboards manifests dist system clean

DURATION ?=
ONLY ?=
SECONDS ?= 1800
N ?= 10
ARGS ?=
GRAFANA ?=
EXPORTER ?=
RUNBOOKS ?=
RAY ?= 2.44.1
# The Go module of Prometheus 3.16.
PROMETHEUS3 := v0.316.0
HELM := v3.19.0
KUBECONFORM := v0.7.0
OLDER_RAYS := 2.20.0 2.31.0 2.44.1
# python3 may be a Python that Ray has no package for: name another with `make PYTHON=python3.11`.
PYTHON ?= python3
BIN := .venv/bin
COVERED := --cov --cov-append --cov-report= --cov-fail-under=0
SYSTEM_PACKAGES := prometheus prometheus-alertmanager chromium

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## Install the exporter and what it needs into .venv

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Ray Workflows need Python 3.9 to 3.13: name one with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || deploy/install-system-packages python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[ray,dev]'
	@touch $@

system: ## Install the Debian packages that tests need, if we may
	@deploy/install-system-packages $(SYSTEM_PACKAGES) || true

demo: install ## Run workflows on a local Ray and watch them (DURATION=seconds)
	@deploy/install-system-packages prometheus || true
	@PYTHONPATH=tests $(BIN)/python deploy/demo/demo.py $(DURATION)

# Tests on a Ray come after the others, alone: two cores are too few for both. That ARGS choose no
# test of one kind (pytest ends with 5) is no fault.
define both
	$(BIN)/python -m pytest -n 2 -m "($(1)) and not ray" $(2) $(ARGS) || [ $$? -eq 5 -a -n "$(ARGS)" ]
	$(BIN)/python -m pytest -m "($(1)) and ray" $(2) $(or $(ARGS),tests/integration tests/e2e) \
	  || [ $$? -eq 5 -a -n "$(ARGS)" ]
endef

test: install system ## Run all tests but the slow ones; those on a Ray alone, after the others (ARGS=for pytest)
	$(call both,not slow,)

unit: install ## Run the tests that start no other process
	$(BIN)/python -m pytest -n 2 -m "not (slow or process or prometheus)" $(ARGS) tests/unit

coverage: install system ## Run all tests but the slow ones, and fail below 90 % of the lines
	$(BIN)/coverage erase
	$(call both,not slow,$(COVERED))
	$(BIN)/coverage report

test-all: install system ## Run all tests with many examples, coverage, older Rays, Prometheus 3, Helm
	@! command -v go >/dev/null || $(MAKE) prometheus3 helm
	$(BIN)/coverage erase
	$(call both,ray or not ray,--hypothesis-profile=ci $(COVERED))
	$(BIN)/coverage report
	set -e; for ray in $(OLDER_RAYS); do $(MAKE) test-ray RAY=$$ray; done

flakes: install system ## Run all tests but the slow ones N times in random order, every second time on a busy machine
	PYTHONPATH=tests $(BIN)/python -m support.flakes $(N)

test-ray: .venv-ray-$(RAY)/installed ## Run the tests inside Ray with another Ray (RAY=2.31.0)
	.venv-ray-$(RAY)/bin/python -m pytest tests/integration/test_inside_ray.py

.venv-ray-%/installed: pyproject.toml
	$(PYTHON) -m venv .venv-ray-$*
	.venv-ray-$*/bin/python -m pip install --quiet --upgrade pip
	.venv-ray-$*/bin/python -m pip install --quiet --editable '.[test]' 'ray[default]==$*'
	@touch $@

prometheus3: .tools/promtool ## Build Prometheus 3 and promtool with Go, in about 15 minutes

# Without the service discoveries of clouds, which take most of the time.
.tools/promtool:
	GOBIN=$(CURDIR)/.tools nice go install -tags remove_all_sd -ldflags '-s -w' \
	  github.com/prometheus/prometheus/cmd/promtool@$(PROMETHEUS3) \
	  github.com/prometheus/prometheus/cmd/prometheus@$(PROMETHEUS3)

helm: .tools/helm ## Build Helm and kubeconform with Go, in about 10 minutes

.tools/helm:
	GOBIN=$(CURDIR)/.tools nice go install -ldflags '-s -w' \
	  github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM)
	GOBIN=$(CURDIR)/.tools nice go install -ldflags '-s -w' helm.sh/helm/v3/cmd/helm@$(HELM)

bench: install ## Measure against peers, in about 20 minutes (ONLY=scrape for one)
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(ONLY)

soak: install ## Watch a busy Ray for long: flat memory, no error (SECONDS=1800)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.soak $(SECONDS)

lint: install ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## Generate the references from the code
	$(BIN)/python -m docs.reference.metrics > docs/metrics.md
	$(BIN)/python -m docs.reference.settings > docs/settings.md
	$(BIN)/python -m docs.reference.command_line > docs/command-line.md
	$(BIN)/python -m docs.reference.api > docs/api.md

docs-site: install ## Build the documentation as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

rules: install ## Write the alerts and recording rules (GRAFANA=URL EXPORTER=URL RUNBOOKS=URL for links)
	$(BIN)/python -m prometheus.generate $(if $(GRAFANA),--grafana $(GRAFANA)) \
	  $(if $(EXPORTER),--exporter $(EXPORTER)) \
	  $(if $(RUNBOOKS),--runbooks $(RUNBOOKS))

dashboards: install ## Write the dashboards for Grafana from their code
	$(BIN)/python -m grafana.generate

manifests: install .tools/helm ## Write the plain Kubernetes objects from the Helm chart
	$(BIN)/python deploy/manifests.py

dist: install ## Build wheel, sdist and SBOM into dist/, each twice to the same bytes
	$(BIN)/python deploy/dist.py

clean: ## Remove what the other targets made
	rm -rf .venv .venv-ray-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
