# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys, venv; assert sys.version_info >= (3, 11)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
LOCK := locks/all.txt
DEMO ?= demo
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test e2e lint verify generate manifests lock images image image-sizes pipeline bench clean

help:  ## what each target does
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/installed  ## create .venv from the lock file (about five minutes once; at once when nothing changed)

.venv/installed: $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: No Python >= 3.11 with venv was found; install python3.11 and python3.11-venv."; exit 2; }
	@sum="$$(cat $(LOCK) | sha256sum | cut -c1-16)"; \
	if [ "$$(cat .venv/lock 2>/dev/null)" != "$$sum" ]; then \
	  $(PYTHON) -m venv --clear .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK) && \
	  echo "$$sum" > .venv/lock; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## the main job, end to end on CPU with tiny models; the report's place is printed at the end
	$(BIN)/vasevqa sample $(DEMO)/inputs --models
	$(BIN)/vasevqa run vasevqa/recipes/demo.yaml --volume $(DEMO)

test: setup  ## all tests
	$(BIN)/python -m pytest

e2e: setup  ## tests on the Kubernetes cluster that KUBECONFIG names (see the README)
	@test -n "$$KUBECONFIG" || { echo "error: Set KUBECONFIG to the cluster that the tests may use; the README names a small one."; exit 2; }
	$(BIN)/python -m pytest tests/e2e -m e2e

lint: setup  ## formatting, style, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

verify: setup  ## regenerate what is generated and committed; fail on a difference
	$(BIN)/python -m scripts.generated --check

manifests: generate  ## write k8s/: what the chart and the renderer make (needs helm for base.yaml)

generate: setup  ## write what is generated and committed
	$(BIN)/python -m scripts.generated

lock:  ## resolve the lock files anew (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --quiet --no-header --output-file locks/all.txt
	for extra in "launcher:" "curation:--extra curation" "training:--extra training"; do \
	  uv pip compile pyproject.toml $${extra#*:} --universal --python-version 3.11 --generate-hashes --quiet --no-header --constraint locks/all.txt --output-file locks/$${extra%%:*}.txt; \
	done
	uv pip compile --config-file locks/uv.toml locks/gpu.in pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-header --output-file locks/gpu.txt
	uv pip compile --config-file locks/uv.toml locks/megatron.in pyproject.toml --extra megatron --constraint locks/training.txt --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-header --output-file locks/megatron.txt

# Plain Python and docker do it: no set-up needed. REGISTRY=..., PUSH=1, BASE_IMAGE=..., TRAINING_LOCK=locks/gpu.txt, DIGESTS=images.yaml
IMAGES := $(PYTHON) -m images.build $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(PUSH),--push) $(if $(BASE_IMAGE),--base-image "$(BASE_IMAGE)") \
  $(if $(TRAINING_LOCK),--training-lock "$(TRAINING_LOCK)") $(if $(DIGESTS),--digests "$(DIGESTS)")

images:  ## the container images of all stages but to-megatron; PUSH=1 REGISTRY=... sends them, their digests go to images.yaml
	@$(IMAGES)

image:  ## one of them: make image STAGE=clip-filter
	@test -n "$(STAGE)" || { echo "error: Say which image: make image STAGE=clip-filter." >&2; exit 2; }
	@$(IMAGES) --stage "$(STAGE)"

image-sizes:  ## measure the images that are here, and write the README's table of sizes
	@$(PYTHON) -m images.sizes

# RECIPE=, SET="sft.learning_rate=1e-5", INPUT="images=photos", TO=, NAMESPACE=, CLUSTER=, REGISTRY=, REPORTS=
export RECIPE SET INPUT TO NAMESPACE CLUSTER REGISTRY REPORTS TAG
pipeline: setup  ## the main job on your cluster: images, doctor, run RECIPE, bring its report here; NAMESPACE=, REGISTRY=
	@k8s/pipeline

bench: setup  ## speed, as a table of ratios measured in one run
	$(BIN)/python -m benchmarks

clean:  ## remove the environment, caches and the demo's volume
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info $(DEMO)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
