#!/bin/sh
# make bench: tables on stdout, the same with all samples in BUILD/bench/results.json, and a
# picture of them, BUILD/bench/results.png. Options go to bench/run.py. matplotlib comes from
# PyPI into BUILD/bench/plot-venv. usage: run.sh BUILD [option…]
set -eu
build="${1:?usage: run.sh BUILD [option…]}"
shift
cd "$(dirname "$0")/.."
mkdir -p "$build/cache"
python3 -B bench/run.py "$build" "$@"

venv="$build/bench/plot-venv"
sh contrib/venv.sh "$venv" bench/requirements.txt
"$venv/bin/python" -B bench/plot.py "$build/bench/results.json" "$build/bench/results.png"
echo "$build/bench/results.png"
