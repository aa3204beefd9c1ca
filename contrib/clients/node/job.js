// Send a job to darkroom, follow it to its end, save the picture.
//
// usage: node job.js PROMPT SEED ID FILE [stream|live]      REDIS_URL: where Redis is
// Needs: npm install redis @msgpack/msgpack
import { writeFile } from "node:fs/promises";
import { encode } from "@msgpack/msgpack";
import { createClient, RESP_TYPES } from "redis";

const P = "{darkroom}";
const TERMINAL = new Set(["succeeded", "failed", "canceled", "expired"]);

// Print an event as it came. Returns it when it ends the job.
function show(text) {
  console.log(text);
  const event = JSON.parse(text);
  return TERMINAL.has(event.event) ? event : null;
}

// The job's events from its first one on; read late or again, it tells the same.
async function stream(reader, job) {
  const from = { key: `${P}:events:${job}`, id: "0" };
  for (;;) {
    const streams = await reader.xRead(from, { BLOCK: 1000 });
    for (const { id, message } of streams?.[0].messages ?? []) {
      from.id = id;
      const end = show(message.event);
      if (end) return end;
    }
  }
}

// The same events as they are published. Resolves, once Redis has confirmed, to a function
// that waits for the end: only then send the job.
async function live(reader, job) {
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  await reader.subscribe(`${P}:progress:${job}`, (text) => {
    const last = show(text);
    if (last) ended(last);
  });
  return () => end;
}

async function main(prompt, seed, job, file, how = "stream") {
  const redis = await createClient({ url: process.env.REDIS_URL })
    .on("error", console.error)
    .connect();
  const reader = await redis.duplicate().on("error", console.error).connect();
  const end = how === "live" ? await live(reader, job) : () => stream(reader, job);

  // A number of JavaScript's is exact up to 2^53; a decimal string keeps all 64 bits.
  const exact = Number.isSafeInteger(Number(seed)) ? Number(seed) : seed;
  const packed = encode({
    id: job, prompt, seed: exact, steps: 20, meta: { client: "node-redis" },
  });
  await redis.xAdd(`${P}:q:normal`, "*", { job: Buffer.from(packed) });

  const event = await end();
  if (event.event === "succeeded") {
    const raw = redis.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    await writeFile(file, await raw.get(event.images[0].key));
  }
  reader.destroy();
  redis.destroy();
  return event.event === "succeeded" ? 0 : 1;
}

const given = process.argv.slice(2);
if (given.length < 4) {
  console.error("usage: node job.js PROMPT SEED ID FILE [stream|live]");
  process.exit(64);
}
process.exitCode = await main(...given);
