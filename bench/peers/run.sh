#!/bin/sh
# make bench-peers: darkroom beside PyTorch with diffusers and OpenVINO, on one model, the
# same inputs, in one run. The table on stdout, the same and more in BUILD/bench/peers.json.
# The two come from PyPI into BUILD/bench/venv; PEERS_PYTHON=PATH takes a Python that has
# them. The model is made once (BUILD/bench/peers, 6 GB with OpenVINO's copy).
# usage: run.sh BUILD [option of run.py…]
set -eu
build="${1:?usage: run.sh BUILD [option…]}"
shift
cd "$(dirname "$0")/../.."
build="$(cd "$build" && pwd)"
mkdir -p "$build/bench/peers" "$build/cache"
export XDG_CACHE_HOME="$build/cache"

venv="$build/bench/venv"
requirements=bench/peers/requirements.txt
if [ -z "${PEERS_PYTHON:-}" ] && ! cmp -s "$requirements" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi
exec "${PEERS_PYTHON:-$venv/bin/python}" bench/peers/run.py "$build" "$@"
