#!/bin/sh
# A virtual environment in FOLDER with the packages of a list; made again when the list
# changes. usage: venv.sh FOLDER REQUIREMENTS.txt
set -eu
venv="${1:?usage: venv.sh FOLDER REQUIREMENTS.txt}"
requirements="${2:?usage: venv.sh FOLDER REQUIREMENTS.txt}"

cmp -s "$requirements" "$venv/requirements.txt" && exit 0
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install -q -r "$requirements"
cp "$requirements" "$venv/requirements.txt"
