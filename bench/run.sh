#!/bin/sh
# make bench: tables on stdout, the same with all samples in BUILD/bench/results.json. Options
# go to bench/run.py. usage: run.sh BUILD [option…]
set -eu
build="${1:?usage: run.sh BUILD [option…]}"
shift
cd "$(dirname "$0")/.."
mkdir -p "$build/cache"
python3 -B bench/run.py "$build" "$@"
