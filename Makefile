# On a new machine, `make demo` and `make test` also install everything that they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys, venv; assert sys.version_info >= (3, 11)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
LOCK := locks/all.txt
DEMO ?= demo
# The recipe names the inputs of the folder demo/.
DEMO_INPUTS = $(if $(filter-out demo,$(DEMO)),--input images=$(DEMO)/inputs/photos --input quality_data=$(DEMO)/inputs/quality \
  --input clip_model=$(DEMO)/inputs/models/tiny-clip --input annotations=$(DEMO)/inputs/annotations.json \
  --input model=$(DEMO)/inputs/models/tiny-qwen --input questions=$(DEMO)/inputs/questions.yaml)
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test e2e lint verify generate manifests lock images image image-sizes pipeline bench faults clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/installed  ## create .venv from the lock file (about five minutes the first time; nothing to do if the lock file is unchanged)

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

demo: setup  ## run the whole pipeline on the CPU with tiny models; the last lines say what came of it. DEMO=folder SEED=1 draws other vases
	$(BIN)/vasevqa sample $(DEMO)/inputs --models $(if $(SEED),--seed "$(SEED)")
	$(BIN)/vasevqa run vasevqa/recipes/demo.yaml --volume $(DEMO) $(DEMO_INPUTS)

test: setup  ## run all tests, or those in TESTS=
	$(BIN)/python -m pytest $(TESTS)

e2e: setup  ## run the tests that need a Kubernetes cluster; KUBECONFIG names the cluster (see the README)
	@test -n "$$KUBECONFIG" || { echo "error: Set KUBECONFIG to the cluster that the tests may use; the README describes a small one."; exit 2; }
	$(BIN)/python -m pytest tests/e2e -m e2e

lint: setup  ## check formatting, style, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

verify: setup  ## check that the generated files are up to date
	$(BIN)/python -m scripts.generated --check

manifests: generate  ## write the manifests in k8s/ (base.yaml needs helm)

generate: setup  ## write the generated files that are committed
	$(BIN)/python -m scripts.generated

lock:  ## write new lock files (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --quiet --no-header --output-file locks/all.txt
	for extra in "launcher:" "curation:--extra curation" "training:--extra training"; do \
	  uv pip compile pyproject.toml $${extra#*:} --universal --python-version 3.11 --generate-hashes --quiet --no-header --constraint locks/all.txt --output-file locks/$${extra%%:*}.txt; \
	done
	uv pip compile --config-file locks/uv.toml locks/gpu.in pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-header --output-file locks/gpu.txt
	uv pip compile --config-file locks/uv.toml locks/megatron.in pyproject.toml --extra megatron --constraint locks/training.txt --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-header --output-file locks/megatron.txt

# These targets need only Python and docker, no `make setup`. Variables: REGISTRY=..., PUSH=1, BASE_IMAGE=..., TRAINING_LOCK=locks/gpu.txt, DIGESTS=images.yaml
IMAGES := $(PYTHON) -m images.build $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(PUSH),--push) $(if $(BASE_IMAGE),--base-image "$(BASE_IMAGE)") \
  $(if $(TRAINING_LOCK),--training-lock "$(TRAINING_LOCK)") $(if $(DIGESTS),--digests "$(DIGESTS)")

images:  ## build the images of all stages except to-megatron; PUSH=1 REGISTRY=... also pushes them and writes their digests to images.yaml
	@$(IMAGES)

image:  ## build one image: make image STAGE=clip-filter
	@test -n "$(STAGE)" || { echo "error: Name the image: make image STAGE=clip-filter." >&2; exit 2; }
	@$(IMAGES) --stage "$(STAGE)"

image-sizes:  ## measure the images on this machine, and write the README's table of sizes
	@$(PYTHON) -m images.sizes

# RECIPE=, SET="sft.learning_rate=1e-5", INPUT="images=photos", TO=, NAMESPACE=, CLUSTER=, REGISTRY=, REPORTS=
export RECIPE SET INPUT TO NAMESPACE CLUSTER REGISTRY REPORTS TAG
pipeline: setup  ## build the images, run RECIPE on your cluster, and download the report; NAMESPACE=, REGISTRY=
	@k8s/pipeline

bench: setup  ## measure the speed, and print a table of ratios
	$(BIN)/python -m benchmarks

faults: setup  ## let system calls of a stage and a launcher fail, and write what came of it to benchmarks/faults.md (needs gcc)
	$(BIN)/python -m benchmarks.faults

clean:  ## remove .venv, caches and the demo's volume
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info $(DEMO)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
