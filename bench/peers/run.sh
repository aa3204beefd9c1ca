#!/bin/sh
# make bench-peers: darkroom beside PyTorch with diffusers and OpenVINO, on one model, the
# same inputs, in one run. The table on stdout, the same and more in BUILD/bench/peers.json, a
# picture of it in BUILD/bench/peers.png. The two come from PyPI into BUILD/bench/venv; PEERS_PYTHON=PATH takes a Python that has
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
[ -n "${PEERS_PYTHON:-}" ] || sh contrib/venv.sh "$venv" bench/peers/requirements.txt
"${PEERS_PYTHON:-$venv/bin/python}" bench/peers/run.py "$build" "$@"

plot="$build/bench/plot-venv"
sh contrib/venv.sh "$plot" bench/requirements.txt
"$plot/bin/python" -B bench/peers/plot.py "$build/bench/peers.json" "$build/bench/peers.png"
echo "$build/bench/peers.png"
