#!/usr/bin/env bash
# Proves that the CUDA paths compile and link: makes .venv-cuda with the CUDA build of LibTorch (about 5 GB), configures with
# -DATHANOR_CUDA=ON in build/cuda and builds the training library, the trainer (when the service is built) and the tests of the process group.
# Needs no GPU and no CUDA toolkit. Usage: scripts/check_cuda_build.sh [jobs]
set -euo pipefail
cd "$(dirname "$0")/.."
jobs="${1:-2}"
torch_version="2.12.1"   # the CPU wheel of the tree's own version hides the CUDA one of the same number

if ! ls .venv-cuda/lib/python3*/site-packages/torch/lib/libtorch_cuda.so >/dev/null 2>&1; then
  echo "== making .venv-cuda with torch==${torch_version} (about 5 GB)"
  python3 -m venv .venv-cuda
  .venv-cuda/bin/pip install --disable-pip-version-check "torch==${torch_version}"
fi
ls .venv-cuda/lib/python3*/site-packages/torch/lib/libtorch_cuda.so >/dev/null || {
  echo "error: the installed torch has no libtorch_cuda.so: it is not a CUDA build" >&2
  exit 1
}

service=ON
[ -f /usr/lib/x86_64-linux-gnu/cmake/grpc/gRPCConfig.cmake ] || service=OFF
cmake -G Ninja -B build/cuda -DCMAKE_BUILD_TYPE=Release -DATHANOR_CUDA=ON -DATHANOR_BUILD_SERVICE="${service}"
targets="athanor_parallel athanor_runner process_group_test"
ninja -C build/cuda -t targets all | grep -q '^athanor_trainer_lib:' && targets="${targets} athanor_trainer_lib"
ninja -C build/cuda -t targets all | grep -q '^athanor-trainer:' && targets="${targets} athanor-trainer"
# shellcheck disable=SC2086
ninja -C build/cuda -j "${jobs}" ${targets}

test_program="build/cuda/tests/unit/common/parallel/process_group_test"
readelf -d "${test_program}" | grep -q libtorch_cuda || { echo "error: ${test_program} is not linked with libtorch_cuda" >&2; exit 1; }
echo "== it starts, and its CPU tests pass"
"${test_program}" --gtest_brief=1
echo "CUDA build: ok"
