#!/bin/sh
# The virtual environment for tests/e2e, in build/venv: pytest and what the clients need. Made
# again when the list changes.
set -eu
cd "$(dirname "$0")/.."
requirements=tests/e2e/requirements.txt
venv=build/venv

cmp -s "$requirements" "$venv/requirements.txt" && exit 0
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install -q -r "$requirements"
cp "$requirements" "$venv/requirements.txt"
