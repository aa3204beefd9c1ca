#!/bin/sh
# Run the test programs under BUILD/tests, then pytest on tests/e2e. The last line is
# "N passed, M failed"; exit 1 when M is not 0. usage: run-tests.sh BUILD
set -u
build="${1:?usage: run-tests.sh BUILD}"
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$build/cache"
build="$(cd "$build" && pwd)"
root="$(pwd)"
venv="$root/build/venv"
passed=0
failed=0

# Settings of the caller's own must not reach the tests, nor tests the caller's caches.
for name in $(env | sed -n 's/^\(DARKROOM_[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done

case "$build" in
*asan)
    export ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1"
    export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
    export LSAN_OPTIONS="suppressions=$root/contrib/lsan.supp:print_suppressions=0"
    ;;
esac

run_program() {
    log="$build/tests/$(basename "$1").log"
    if XDG_CACHE_HOME="$build/cache" DARKROOM_BUILD="$build" timeout 900 "$1" >"$log" 2>&1; then
        echo "ok      ${1#"$build/"}"
        passed=$((passed + 1))
    else
        echo "FAILED  ${1#"$build/"} (exit $?)"
        tail -n 60 "$log" | sed 's/^/        /'
        failed=$((failed + 1))
    fi
}

# The number in front of a word of pytest's closing line, 0 without it; what a server that is
# being stopped says may come after it.
count() {
    n="$(grep -E ' in [0-9.]+s' "$log" | tail -n 1 | sed -n "s/.*[^0-9]\([0-9][0-9]*\) $1.*/\1/p;s/^\([0-9][0-9]*\) $1.*/\1/p" | head -n 1)"
    echo "${n:-0}"
}

run_pytest() {
    log="$build/tests/e2e.log"
    if ! sh contrib/venv.sh "$venv" tests/e2e/requirements.txt; then
        echo "FAILED  tests/e2e: no virtual environment in $venv"
        failed=$((failed + 1))
        return
    fi
    # The status goes through a file, because a pipe hides it.
    {
        XDG_CACHE_HOME="$build/cache" DARKROOM_BUILD="$build" PYTHONDONTWRITEBYTECODE=1 \
            timeout 1800 "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/e2e 2>&1
        echo $? >"$log.status"
    } | tee "$log"
    bad=$(($(count failed) + $(count error)))
    [ "$(cat "$log.status")" = 0 ] || [ "$bad" != 0 ] || bad=1
    passed=$((passed + $(count passed)))
    failed=$((failed + bad))
}

for program in "$build"/tests/unit/test_* "$build"/tests/ops/test_* "$build"/tests/golden/test_*; do
    case "$program" in *.o | *.d | *\*) continue ;; esac
    [ -f "$program" ] && [ -x "$program" ] && run_program "$program"
done
run_pytest

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
