#!/usr/bin/env bash
# The trainers that `make bench` compares with, in .venv-peers: on top of .venv's packages, so that all use one torch.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=.venv-peers/athanor-setup
wanted="$(cat bench/peers/requirements.txt .venv/athanor-setup)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi
echo "setup: virtual environment .venv-peers with bench/peers/requirements.txt"
python3 -m venv .venv-peers
site=$(.venv-peers/bin/python -c 'import site; print(site.getsitepackages()[0])')
.venv/bin/python -c 'import site; print(site.getsitepackages()[0])' > "$site/athanor.pth"
.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt
printf '%s' "$wanted" > "$stamp"
