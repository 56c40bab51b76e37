# Thin: each target calls scripts/, cmake or ctest. `make help` explains.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD ?= build/release
JOBS ?= $(shell nproc)
PREFIX ?= $(CURDIR)/install
# Clang compiles the code that sees LibTorch three times as fast as GCC 12: its precompiled header keeps the templates
# instantiated. GCC works too: make BUILD=build/gcc COMPILER=g++. (Asked for when needed: setup may just have installed it.)
COMPILER ?= $$(command -v clang++-19 || echo g++)
CONFIGURE = cmake -G Ninja -S . -B $(1) --log-level=WARNING -DCMAKE_CXX_COMPILER=$(COMPILER) $(2)

.PHONY: help setup configure build demo serve test bench docs format check-format lint asan asan-library tsan fuzz cuda install clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: ## Install what is missing: Debian packages, .venv with LibTorch (nothing to do: < 1 s)
	@scripts/setup.sh

configure: setup
	@[ -f $(BUILD)/build.ninja ] || $(call CONFIGURE,$(BUILD),-DCMAKE_BUILD_TYPE=Release)

build: configure ## Build everything, Release, into build/release
	@cmake --build $(BUILD) -j $(JOBS) -- --quiet

programs: configure
	@cmake --build $(BUILD) -j $(JOBS) --target athanord athanor-agent athanor-trainer athanor -- --quiet

demo: programs ## From nothing to a trained job that survives a SIGKILL, in one command
	@python3 scripts/demo.py --build $(BUILD)

serve: programs ## A coordinator and two agents on this machine, until Ctrl-C
	@python3 scripts/serve.py --build $(BUILD)

test: build ## Build and run every test; one summary at the end
	@scripts/run_tests.sh $(BUILD)

bench: configure ## Run the benchmarks; JSON into bench/results, table into docs/performance.md
	@cmake -B $(BUILD) -DATHANOR_BUILD_BENCH=ON --log-level=WARNING
	@cmake --build $(BUILD) -j $(JOBS) -- --quiet
	@scripts/setup_peers.sh
	@.venv/bin/python bench/run.py --build $(BUILD) --peers .venv-peers/bin/python
	@python3 bench/render.py

docs: ## API reference of the library by Doxygen, into build/docs/html
	@scripts/setup.sh doxygen
	@mkdir -p build && ATHANOR_DOCS_OUT=build/docs doxygen docs/Doxyfile
	@echo "build/docs/html/index.html"

format: ## Format all C++ sources
	@scripts/format.sh

check-format: ## Say which sources are not formatted
	@scripts/format.sh --check

lint: configure ## Check the torch-free code with clang-tidy (.clang-tidy has the reasons)
	@scripts/setup.sh clang-tidy-19
	@JOBS=$(JOBS) scripts/lint.sh $(BUILD)

asan: setup ## The torch-free code and its tests under AddressSanitizer and UBSan
	@scripts/setup.sh libclang-rt-19-dev llvm-19
	@$(call CONFIGURE,build/asan,-DCMAKE_BUILD_TYPE=RelWithDebInfo -DATHANOR_BUILD_TRAIN=OFF -DATHANOR_SANITIZE=address$(comma)undefined)
	@cmake --build build/asan -j $(JOBS) -- --quiet
	@scripts/run_tests.sh build/asan -LE 'e2e|tidy|package'

asan-library: setup ## Tensor code, metrics and readers under AddressSanitizer and UBSan (LibTorch itself is as it is)
	@scripts/setup.sh libclang-rt-19-dev llvm-19
	@$(call CONFIGURE,build/asan-library,-DCMAKE_BUILD_TYPE=RelWithDebInfo -DATHANOR_BUILD_SERVICE=OFF -DATHANOR_SANITIZE=address$(comma)undefined)
	@cmake --build build/asan-library -j $(JOBS) --target nested_tensor_test metrics_test fp8_linear_test data_test tools_test -- --quiet
	@ASAN_OPTIONS=detect_leaks=0:detect_container_overflow=0 scripts/run_tests.sh build/asan-library -R '^(nested_tensor|metrics|fp8_linear|data|tools)_test$$'

# Not the tests whose messages pass from thread to thread inside of gRPC, which is not instrumented: the hand-over cannot
# be seen, and every message looks like a race.
tsan: setup ## The torch-free code and its tests under ThreadSanitizer
	@scripts/setup.sh libclang-rt-19-dev llvm-19
	@$(call CONFIGURE,build/tsan,-DCMAKE_BUILD_TYPE=RelWithDebInfo -DATHANOR_BUILD_TRAIN=OFF -DATHANOR_SANITIZE=thread)
	@cmake --build build/tsan -j $(JOBS) -- --quiet
	@TSAN_OPTIONS=suppressions=$(CURDIR)/scripts/tsan.supp scripts/run_tests.sh build/tsan -LE 'e2e|tidy|package' -E '^(listener|coordinator_door)_test$$'

cuda: ## Compile and link the CUDA + NCCL build against the CUDA wheel (downloads about 5 GB)
	@scripts/check_cuda_build.sh

install: build ## Install programs, library and CMake package into PREFIX (default ./install)
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## Remove build folders (not .venv)
	@rm -rf build install

comma := ,
