#!/bin/sh
# The one list of Debian packages that darkroom needs. Prints what is missing and installs
# it (as root, or through sudo). `deps.sh build` is enough to compile and run;
# `deps.sh test` adds what `make test` and `make check` use.
set -eu

build="gcc make pkg-config libc6-dev
  ocl-icd-opencl-dev opencl-headers pocl-opencl-icd libclblast-dev
  libhiredis-dev libmsgpack-dev libwebp-dev libspng-dev libturbojpeg0-dev libcjson-dev libpcre2-dev libutf8proc-dev
  libinih-dev libxxhash-dev libssl-dev libmicrohttpd-dev
  redis-server redis-tools"
test="libcmocka-dev git golang-go libimage-exiftool-perl openssl procps python3 python3-venv
  clang-14 clang-format-14 cppcheck"

case "${1:-build}" in
build) want="$build" ;;
test) want="$build $test" ;;
*) echo "usage: $0 [build|test]" >&2; exit 64 ;;
esac

missing=""
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $p"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "not root and no sudo; install by hand: apt-get install$missing" >&2
        exit 69
    }
    as_root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q
# shellcheck disable=SC2086  # a list of words on purpose
$as_root apt-get install -q -y --no-install-recommends $missing
