#!/bin/sh
# make bench: the table on stdout, the same as JSON in BUILD/bench/results.json. Options go
# to the program: `sh bench/run.sh build --size 512 --batch 2` is a 512x512 picture's call
# with guidance (minutes on a CPU). usage: run.sh BUILD [option…]
set -eu
build="${1:?usage: run.sh BUILD [option…]}"
shift
cd "$(dirname "$0")/.."
"$build/bench/bench" --full "$build/bench/sd15" --json "$build/bench/results.json" "$@"
echo "$build/bench/results.json"
