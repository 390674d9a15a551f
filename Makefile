# One command a line of work; `make` alone lists them.

PYTHON ?= python3
BACKENDS ?= torch,oneflow,mindspore
OUT ?= runs/demo
DEVICE ?= cuda
PYTEST_ARGS ?=

comma := ,
backends := $(subst $(comma), ,$(BACKENDS))
# This one runs every test, the others only those marked `backend`.
first := $(firstword $(filter torch,$(backends)) $(backends))
others := $(filter-out $(first),$(backends))
pytest = $(call bin,$(1))/python -m pytest --backend $(1) $(if $(filter-out $(first),$(1)),-m backend) $(2) $(PYTEST_ARGS)
bin = $(if $(filter oneflow,$(1)),.venv-oneflow,.venv)/bin
# A worker process reaches the other environment, so one is enough to start from.
main_bin := $(call bin,$(if $(filter-out oneflow,$(backends)),,oneflow))

.DEFAULT_GOAL := help
.PHONY: help demo test device-check docs environments clean clean-environments

help:
	@echo "make demo               one recipe on every backend, and a report that compares them, in $(OUT)"
	@echo "make test               all tests, once for each backend"
	@echo "make device-check       operations, losses, trainings and speed on DEVICE (cuda, npu, ascend, cpu), within eight minutes"
	@echo "make docs               the documentation site, in build/docs; broken links are errors"
	@echo "make environments       what both need first: .venv and .venv-oneflow (reused when up to date)"
	@echo "make clean              delete caches and build leftovers; runs/ and the environments stay"
	@echo "make clean-environments delete .venv and .venv-oneflow"
	@echo
	@echo "variables: BACKENDS=$(BACKENDS)  OUT=$(OUT)  DEVICE=$(DEVICE)  PYTHON=$(PYTHON)  PYTEST_ARGS='-k losses -x'"

environments:
	@$(PYTHON) environments.py $(backends)

demo: environments
	@$(main_bin)/crossdistil demo --backends "$(BACKENDS)" --out "$(OUT)"

# The others' tests run beside those of the first backend, which take longest and are two processes: so they end at about the same
# time, on two cores and on four. (What PYTEST_ARGS asks for may lie in one half alone, and is one.) What they print comes when they
# are done, and what failed is named once more at the end, where one looks. Hundreds of processes start: bytecode is kept, whatever
# is set.
halves := $(if $(PYTEST_ARGS),,yes)
test: SHELL := bash -o pipefail
test: environments
	@export PYTHONDONTWRITEBYTECODE=; failed=; said=$$(mktemp -d); \
	trap 'kill $$(jobs -p) 2>/dev/null; rm -rf "$$said"' EXIT; trap 'exit 130' INT TERM; \
	$(foreach backend,$(others),$(call pytest,$(backend)) >"$$said/$(backend)" 2>&1 & $(backend)=$$!;) \
	$(if $(halves),$(call pytest,$(first),--part 2/2) >"$$said/half" 2>&1 & half=$$!;) \
	echo "== tests, $(first)"; $(call pytest,$(first),$(if $(halves),--part 1/2)) | tee "$$said/$(first)" || failed=" $(first)"; \
	$(if $(halves),wait $$half || failed=" $(first)"; echo "== tests$(comma) $(first)$(comma) the other half"; cat "$$said/half";) \
	$(foreach backend,$(others),wait $$$(backend) || failed="$$failed $(backend)"; echo "== tests, $(backend)"; cat "$$said/$(backend)";) \
	if [ -n "$$failed" ]; then grep -hE '^(FAILED|ERROR) ' "$$said"/*; echo "== failed:$$failed"; exit 1; fi; \
	echo "== passed: $(backends)"

# Needs no environment but a Python that has the framework, as machines with a device mostly come with one.
device-check:
	@$(PYTHON) benchmarks/device_check.py --device "$(DEVICE)"

docs:
	@$(PYTHON) environments.py $(first)
	@$(main_bin)/python benchmarks/pages.py && $(main_bin)/python docs/generator/reference.py
	@NO_MKDOCS_2_WARNING=1 $(main_bin)/python -m mkdocs build --strict --clean

clean:
	rm -rf .cache .pytest_cache .hypothesis .ruff_cache build dist crossdistil.egg-info rank_0 kernel_meta
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-environments:
	rm -rf .venv .venv-oneflow
