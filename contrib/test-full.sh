#!/bin/sh
# SD 1.5 at its real width against diffusers: one text batch, one UNet call, one decode to
# 512x512, relative L2 <= 1e-3 stage by stage. The fixture is made once, under
# build/fullwidth, with torch in a virtual environment (2 GB of disk for it and more for
# torch, 8 GB of memory, minutes); DARKROOM_FULLWIDTH=DIR takes one that exists already.
# usage: test-full.sh BUILD
set -eu
build="${1:?usage: test-full.sh BUILD}"
cd "$(dirname "$0")/.."
fixture="${DARKROOM_FULLWIDTH:-build/fullwidth}"
venv=build/ml

# cases.json is written last: with it the fixture is complete.
if [ ! -f "$fixture/cases.json" ]; then
    sh contrib/venv.sh "$venv" contrib/goldens/requirements.txt
    "$venv/bin/python" contrib/goldens/fullwidth.py "$fixture"
fi
mkdir -p "$build/cache"
XDG_CACHE_HOME="$(cd "$build" && pwd)/cache" exec "$build/tests/full/test_full" "$fixture"
