#!/bin/sh
# make chaos: every fault at every moment (tests/e2e/matrix.py) with short and with default
# leases, a fleet of workers under fire (test_soak.py), random sequences against the model of
# the queue (test_model.py). Tables go to BUILD/chaos.md; exit 1 when anything failed.
# usage: chaos.sh BUILD
set -u
build="${1:?usage: chaos.sh BUILD}"
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$build/cache" "$build/tests"
build="$(cd "$build" && pwd)"
log="$build/tests/chaos.log"
failed=0
model_s=300

for name in $(env | sed -n 's/^\(DARKROOM_[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done
export XDG_CACHE_HOME="$build/cache" DARKROOM_BUILD="$build" PYTHONDONTWRITEBYTECODE=1

sh contrib/venv.sh build/venv tests/e2e/requirements.txt || exit 1

# run TITLE FILE NAME=VALUE…: one file of tests in its long form.
run() {
    title="$1" file="$2"
    shift 2
    echo "== $title"
    {
        env "$@" build/venv/bin/python -m pytest -q -p no:cacheprovider "tests/e2e/$file" 2>&1
        echo $? >"$log.status"
    } | tee "$log"
    [ "$(cat "$log.status")" = 0 ] || failed=$((failed + 1))
}

rm -f "$build"/chaos*.md
run "the matrix, short leases" test_chaos.py DARKROOM_MATRIX=all
run "the matrix, default leases" test_chaos.py DARKROOM_MATRIX=all DARKROOM_MATRIX_LEASE_MS=20000
run "2000 jobs" test_soak.py DARKROOM_SOAK_JOBS=2000
series="$(sed -n '/^| seconds /,/ cuts$/p' "$log")"
run "$model_s s of random operations" test_model.py DARKROOM_CHAOS="$model_s"

{
    echo "# Chaos, $(date -u +%Y-%m-%d)"
    echo
    echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    for table in "$build"/chaos-*.md; do
        echo
        cat "$table"
    done
    echo
    echo "$series"
} >"$build/chaos.md"
cat "$build/chaos.md"
[ "$failed" = 0 ] && echo "all parts passed" || echo "$failed of 4 parts failed"
[ "$failed" = 0 ]
