# `make demo` shows the main job; `make test` is what .ci/run runs. Both set a new machine up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SYSTEM := $(VENV)/.system-packages

# What a node needs, and what the demo shows with.
RUN_PACKAGES := python3-venv libseccomp2 libnftables1 iproute2 busybox-static
# The real peers, registries and tools that the tests judge against.
TEST_PACKAGES := nftables runc crun containerd containernetworking-plugins docker-registry skopeo umoci iptables procps \
	uidmap podman catatonit qemu-system-x86 mmdebstrap e2fsprogs criu

export DEBIAN_FRONTEND := noninteractive
CRITEST ?= critest
ENDPOINT ?= unix:///run/wherry/wherry.sock
MISSING = $$(for package in $(1); do dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done)

.PHONY: demo test test-vm venv stubs lint bench clean critest conformance conformance-oci conformance-cni
.NOTPARALLEL:

demo: venv
	$(BIN)/python -m tests.demo

# System tests share one kernel with whatever else the machine does: what fails is asked once more, and must pass then.
test: venv test-packages
	$(BIN)/python -m pytest || $(BIN)/python -m pytest --last-failed --last-failed-no-failures none
	$(BIN)/python -m tests.vm

# systemd and pure cgroup v2, in a virtual machine that is built once, in build/.
test-vm: venv test-packages
	$(BIN)/python -m tests.vm

venv: $(STAMP)

$(SYSTEM): Makefile
	@mkdir -p $(VENV)
	@missing="$(call MISSING,$(RUN_PACKAGES))"; \
	if [ -n "$$missing" ]; then apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing; fi
	@touch $@

$(STAMP): $(SYSTEM) pyproject.toml hatch_build.py runtime/wherry-oci.sh $(wildcard proto/*/*/*.proto)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: test-packages
test-packages:
	@missing="$(call MISSING,$(TEST_PACKAGES))"; \
	if [ -n "$$missing" ]; then apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing; fi
	@sh tests/support/newer_criu.sh $(abspath $(VENV))/criu || echo "no criu that works on this kernel: its tests are skipped, and fail when CI is set"

stubs: venv
	$(BIN)/python hatch_build.py

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: venv test-packages
	$(BIN)/python -m conformance.bench

# Whoever has critest judges wherryd with it: its images come from a registry that is started for it.
critest: venv test-packages
	$(BIN)/python -m conformance.cri critest $(CRITEST)

# The suite that judges any CRI endpoint: make conformance ENDPOINT=unix:///run/containerd/containerd.sock
conformance: venv test-packages
	$(BIN)/python -m pytest conformance/cri --endpoint $(ENDPOINT)

# The suite that judges any OCI runtime: make conformance-oci RUNTIME=/usr/sbin/runc
RUNTIME ?= $(CURDIR)/$(BIN)/wherry-oci
conformance-oci: venv test-packages
	$(BIN)/python -m pytest conformance/oci --runtime $(RUNTIME)

# The suite that judges any CNI plugins: make conformance-cni PLUGINS=/opt/cni/bin
PLUGINS ?= /usr/lib/cni
conformance-cni: venv test-packages
	$(BIN)/python -m pytest conformance/cni --plugin-dir $(PLUGINS)

clean:
	rm -rf $(VENV) build dist shim/gen
