#!/bin/sh
# Send a job to darkroom, follow it to its end, save the picture, with redis-cli alone.
#
# usage: job.sh PROMPT SEED ID FILE [stream|live [fields|msgpack]]
# REDIS_URL: where Redis is. The job goes as plain fields, or as msgpack that Redis itself
# makes of JSON.
set -eu
P='{darkroom}'
[ $# -ge 4 ] || { sed -n '4,6s/^# //p' "$0" >&2; exit 64; }
prompt="$1" seed="$2" job="$3" file="$4" how="${5:-stream}" shape="${6:-fields}"

redis() { redis-cli -e --no-auth-warning -u "${REDIS_URL:-redis://127.0.0.1:6379}" --raw "$@"; }

# A text of one line as a JSON string.
quoted() { printf '%s\n' "$1" | sed 's/["\\]/\\&/g;s/^/"/;s/$/"/'; }

send() {
    meta='{"client": "redis-cli"}'
    if [ "$shape" = fields ]; then
        redis XADD "$P:q:normal" '*' id "$job" prompt "$prompt" seed "$seed" steps 20 \
            meta "$meta"
    else
        # The seed as a string: numbers are doubles in Redis' Lua, exact up to 2^53.
        redis EVAL "return redis.call('XADD', KEYS[1], '*', 'job',
                cmsgpack.pack(cjson.decode(ARGV[1])))" 1 "$P:q:normal" \
            "{\"id\": $(quoted "$job"), \"prompt\": $(quoted "$prompt"),
              \"seed\": \"$seed\", \"steps\": 20, \"meta\": $meta}"
    fi >/dev/null
}

# Print an event; true when it ends the job.
show() {
    printf '%s\n' "$1"
    case "$1" in
    '{"event":"succeeded"'* | '{"event":"failed"'* | '{"event":"canceled"'* | \
        '{"event":"expired"'*) end="$1" ;;
    *) return 1 ;;
    esac
}

# The job's events from its first one on; read late or again, it tells the same. An answer
# is four lines: the stream, the entry's id, "event", the event.
stream() {
    send
    last=0
    while :; do
        answer="$(redis XREAD BLOCK 1000 COUNT 1 STREAMS "$P:events:$job" "$last")"
        [ -n "$answer" ] || continue
        last="$(printf '%s\n' "$answer" | sed -n 2p)"
        ! show "$(printf '%s\n' "$answer" | sed -n 4p)" || return 0
    done
}

# The same events as they are published, three lines each: "message", the channel, the
# event. The first three confirm the subscription: only then is the job sent.
live() {
    pipe="$(mktemp -u)"
    mkfifo "$pipe"
    redis SUBSCRIBE "$P:progress:$job" >"$pipe" &
    listener=$!
    exec 3<"$pipe"
    rm "$pipe"
    while read -r kind <&3 && read -r _ <&3 && IFS= read -r text <&3; do
        case "$kind" in
        subscribe) send ;;
        message) ! show "$text" || break ;;
        esac
    done
    kill "$listener"
}

end=""
case "$how" in live) live ;; *) stream ;; esac
case "$end" in '{"event":"succeeded"'*) ;; *) exit 1 ;; esac
redis -D '' GET "$P:result:$job:0" >"$file"
