#!/bin/sh
# make bench-queue: what the queue costs a job beside asynq and BullMQ, on one private
# redis-server. The table on stdout, the same and more in BUILD/bench/queue.json.
# usage: run.sh BUILD [option of run.py…]
set -eu
build="${1:?usage: run.sh BUILD [option…]}"
shift
cd "$(dirname "$0")/../.."
build="$(cd "$build" && pwd)"
out="$build/bench/queue"
mkdir -p "$out"

# Go and Node for the two others, made again when a list changes.
stamp="$out/made"
want="$(cat bench/queue/requirements.txt bench/queue/asynq/* bench/queue/bullmq/* | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    rm -rf "$out/bullmq"
    sh contrib/venv.sh "$out/venv" bench/queue/requirements.txt
    cp -R bench/queue/bullmq "$out/bullmq"
    (cd "$out/bullmq" && PATH="$out/venv/bin:$PATH" npm ci --no-audit --no-fund --ignore-scripts)
    (cd bench/queue/asynq && CGO_ENABLED=0 GOTOOLCHAIN=local GOCACHE="$out/go-cache" \
        "$out/venv/bin/go" build -buildvcs=false -o "$out/asynq" .)
    echo "$want" >"$stamp"
fi
exec "$out/venv/bin/python" bench/queue/run.py "$build" "$@"
