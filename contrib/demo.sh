#!/bin/sh
# Make one picture: a private redis-server on a unix socket, a worker without any settings
# but its address, a job. Everything ends with the script, also on Ctrl-C.
# usage: demo.sh BUILD; writes darkroom-demo.webp into the current folder.
set -eu
program="${1:?usage: demo.sh BUILD}/darkroom"
prompt="a large red circle on a blue background"
dir="$(mktemp -d)"
socket="$dir/redis.sock"
redis_pid=""
worker_pid=""

# Orderly first, because the worker leaves the queue by itself; then whatever is left.
finish() {
    trap - EXIT INT TERM HUP
    for pid in $worker_pid $redis_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap finish EXIT
trap 'finish; exit 130' INT
trap 'finish; exit 143' TERM HUP

# A child of its own shows its log when it does not come up.
fail() {
    echo "demo: $1" >&2
    cat "$2" >&2
    exit 1
}

redis-server --port 0 --unixsocket "$socket" --save "" --appendonly no --dir "$dir" \
    >"$dir/redis.log" 2>&1 &
redis_pid=$!
tries=0
until [ -S "$socket" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "redis-server did not start" "$dir/redis.log"
    sleep 0.1
done

"$program" worker --redis "unix://$socket" 2>"$dir/worker.log" &
worker_pid=$!
echo "loading the demo model (the first start compiles its kernels) …"
until grep -q 'ev=worker.ready' "$dir/worker.log"; do
    kill -0 "$worker_pid" 2>/dev/null || fail "the worker ended" "$dir/worker.log"
    sleep 0.1
done

echo "\"$prompt\""
"$program" submit "$prompt" --seed 1 --wait -o darkroom-demo.webp --redis "unix://$socket" ||
    fail "the job failed" "$dir/worker.log"
