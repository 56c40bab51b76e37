#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine and says what it does; does nothing, quickly, when nothing is missing.
#   1. Debian packages of scripts/packages.txt (with apt-get; needs root or sudo)
#   2. .venv/ in the tree: LibTorch from the torch wheel, and the Python packages that tests compare with
# Usage: setup.sh [more Debian packages]
# Environment: ATHANOR_TORCH_VERSION (default 2.13.0); ATHANOR_SKIP_APT=1 leaves Debian packages alone.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=${ATHANOR_TORCH_VERSION:-2.13.0}
python_packages=("torch==$torch_version" "numpy==2.4.6" "safetensors==0.8.0" "tensorboard==2.21.0" "wandb==0.31.0" "kubernetes-validate==1.37.0" "huggingface_hub==2.4.0")
# The stamp names all that was asked for, so that a change of this list installs again.
stamp=.venv/athanor-setup
wanted="$(printf '%s\n' "${python_packages[@]}")"

more_packages="$*"

missing_packages() {
  local names
  names="$(sed -e 's/#.*//' -e '/^\s*$/d' scripts/packages.txt) $more_packages"
  # shellcheck disable=SC2086
  dpkg-query -W -f '${Package} ${db:Status-Status}\n' $names 2>/dev/null | awk '$2 == "installed" {print $1}' | sort -u > "$1"
  # dpkg-query answers virtual and renamed packages under other names: compare by name only.
  for name in $names; do grep -qx "$name" "$1" || echo "$name"; done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if [ "${ATHANOR_SKIP_APT:-0}" != 1 ]; then
  command -v apt-get >/dev/null || { echo "setup: this is not a Debian machine; install what scripts/packages.txt names, then run with ATHANOR_SKIP_APT=1" >&2; exit 1; }
  scratch=$(mktemp)
  trap 'rm -f "$scratch"' EXIT
  missing=$(missing_packages "$scratch")
  if [ -n "$missing" ]; then
    echo "setup: installing Debian packages:" $missing
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /tmp/athanor-apt.$$.log 2>&1 ||
      { tail -n 20 /tmp/athanor-apt.$$.log >&2; exit 1; }
    rm -f /tmp/athanor-apt.$$.log
  fi
fi

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  echo "setup: virtual environment .venv with ${python_packages[*]}"
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${python_packages[@]}"
  printf '%s' "$wanted" > "$stamp"
fi
