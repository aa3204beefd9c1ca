#!/bin/sh
# make check: what a reviewer would otherwise have to look for. One line a check, the
# findings below it, exit 1 when any failed. usage: check.sh BUILD
set -u
build="${1:?usage: check.sh BUILD}"
cd "$(dirname "$0")/.." || exit 1
failed=0
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# check NAME COMMAND…: passes when the command exits 0.
check() {
    name="$1"
    shift
    if "$@" >"$log" 2>&1; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        sed 's/^/        /' "$log" | head -n 60
        failed=$((failed + 1))
    fi
}

tracked() { git ls-files -co --exclude-standard -- "$@" | sort; }

format() {
    tracked '*.c' '*.h' ':!cl' | xargs clang-format-14 --dry-run -Werror
}

# An include may only point down; folders of one layer do not know each other.
layers() {
    tracked 'src/*.c' 'src/*.h' | xargs awk '
        function bad(what) { print FILENAME ":" FNR ": " what; failed = 1 }
        BEGIN {
            split("base 0 dev 1 queue 1 image 1 op 2 nn 3 job 4 diffusion 4 worker 5 cli 6", w)
            for (i = 1; i in w; i += 2) rank[w[i]] = w[i + 1]
        }
        /^ *# *include "/ {
            n = split(FILENAME, path, "/"); from = n == 2 ? "cli" : path[2]
            split($0, quoted, "\""); split(quoted[2], target, "/"); to = target[1]
            if (!(from in rank) || !(to in rank))
                bad("unknown folder in \"" quoted[2] "\"")
            else if (from != to && rank[to] >= rank[from])
                bad(from "/ must not include \"" quoted[2] "\"")
        }
        END { exit failed }'
}

# Each library is included in one place only.
doors() {
    bad=0
    while read -r header door; do
        if grep -nE "^ *# *include [<\"]$header" $(tracked 'src/*.c' 'src/*.h' 'include/*.h') |
            grep -v "^$door"; then
            echo "  belongs into $door only"
            bad=1
        fi
    done <<'ROWS'
hiredis/ src/queue/redis\.c:
openssl/ src/queue/tls\.c:
microhttpd src/worker/http\.c:
msgpack src/job/msgpack\.c:
webp/ src/image/webp\.c:
spng src/image/png\.c:
turbojpeg src/image/jpeg\.c:
cjson/ src/base/json\.c:
pcre2 src/nn/bpe\.c:
utf8proc src/base/utf8\.c:
ini\.h src/base/ini\.c:
xxhash src/base/hash\.c:
clblast src/dev/gemm\.c:
CL/ src/dev/
ROWS
    return $bad
}

# Lines of the named files without comments and strings, each led by file:line:.
code() {
    awk '{
        line = $0; out = ""
        if (FNR == 1) comment = 0
        while (line != "") {
            if (comment) {
                if (!(i = index(line, "*/"))) break
                line = substr(line, i + 2); comment = 0
            } else if (match(line, /"([^"\\]|\\.)*"|\/\*|\/\//)) {
                token = substr(line, RSTART, RLENGTH)
                out = out substr(line, 1, RSTART - 1)
                line = substr(line, RSTART + RLENGTH)
                if (token == "//") break
                if (token == "/*") comment = 1; else out = out "\"\""
            } else { out = out line; break }
        }
        print FILENAME ":" FNR ":" out
    }' "$@"
}

banned() {
    code $(tracked 'src/*.c' 'src/*.h' 'include/*.h' 'tests/*.c' 'bench/*.c') |
        grep -E '[^A-Za-z0-9_](strcpy|strcat|sprintf|vsprintf|atoi|strtok|gets|alloca)[ ]*\(' &&
        return 1
    code $(tracked 'src/*.c' 'src/*.h' ':!src/base/mem.c') |
        grep -E '[^A-Za-z0-9_](malloc|calloc|realloc|free|strdup|strndup|asprintf)[ ]*\(' && return 1
    return 0
}

# Compiled for no device in particular, with the work-group sizes of GPUs and of CPUs (where
# reductions need no local memory), the latter for either width of vectors.
kernels() {
    bad=0
    for file in cl/*.cl; do
        for wg in 64 "1 -DLANES=8 -Wno-unused-parameter" "1 -DLANES=16 -Wno-unused-parameter"; do
            clang-14 -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target spir64 \
                -fsyntax-only -Wall -Wextra -Werror -Wno-unused-function -Icl -DWG=$wg \
                -include cl/prelude.h -include cl/tile.h "$file" || bad=1
        done
    done
    return $bad
}

cpp_check() {
    mkdir -p "$build/cppcheck"
    cppcheck -q --std=c11 --enable=warning,performance,portability --error-exitcode=1 \
        --inline-suppr --suppress=missingIncludeSystem --cppcheck-build-dir="$build/cppcheck" \
        -D_GNU_SOURCE -DCL_TARGET_OPENCL_VERSION=120 -Isrc -Iinclude src
}

settings() { "$build/darkroom" config | diff - config/darkroom.conf; }

shell() {
    bad=0
    for file in $(tracked '*.sh'); do sh -n "$file" || bad=1; done
    for file in $(tracked '.ci/*'); do bash -n "$file" || bad=1; done
    return $bad
}

check "format (clang-format-14; make format)" format
check "layers: includes point down" layers
check "one door per library" doors
check "banned functions" banned
check "kernel lint (clang-14, OpenCL 1.2)" kernels
check "cppcheck" cpp_check
check "config/darkroom.conf is \`darkroom config\`" settings
check "shell syntax" shell
[ "$failed" = 0 ] || echo "$failed checks failed"
[ "$failed" = 0 ]
