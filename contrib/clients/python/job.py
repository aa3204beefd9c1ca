"""Send a job to darkroom, follow it to its end, save the picture.

usage: job.py PROMPT SEED ID FILE [stream|live]      REDIS_URL: where Redis is
Needs: pip install redis msgpack
"""
import json
import os
import sys

import msgpack
import redis

P = "{darkroom}"
TERMINAL = {"succeeded", "failed", "canceled", "expired"}


def stream(r, job):
    """The job's events from its first one on; read late or again, it tells the same."""
    last = "0"
    while True:
        for _, entries in r.xread({f"{P}:events:{job}": last}, block=1000) or []:
            for last, fields in entries:
                yield fields[b"event"]


def live(r, job):
    """The same events as they are published. Subscribed before the job is sent."""
    listener = r.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(f"{P}:progress:{job}")
    listener.get_message(timeout=5)  # Redis has confirmed
    return (message["data"] for message in listener.listen())


def main(prompt, seed, job, file, how="stream"):
    r = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    events = live(r, job) if how == "live" else stream(r, job)
    r.xadd(f"{P}:q:normal", {"job": msgpack.packb({
        "id": job, "prompt": prompt, "seed": int(seed), "steps": 20,
        "meta": {"client": "redis-py"}})})
    for text in events:
        print(text.decode(), flush=True)
        event = json.loads(text)
        if event["event"] in TERMINAL:
            break
    if event["event"] != "succeeded":
        return 1
    with open(file, "wb") as out:
        out.write(r.get(event["images"][0]["key"]))
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
