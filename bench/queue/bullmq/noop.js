// No-op jobs through BullMQ. usage: node noop.js SOCKET enqueue|work|latency N; JSON on stdout.
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, QueueEvents, Worker } from "bullmq";

const [socket, mode, count] = process.argv.slice(2);
const n = Number(count);
const data = {
  prompt: "a large red circle on a blue background", negative_prompt: "", width: 512,
  height: 512, steps: 20, cfg_scale: 7.5, seed: 1,
};
const connection = { path: socket, maxRetriesPerRequest: null };
const keep = { removeOnComplete: { age: 3600 }, removeOnFail: { age: 24 * 3600 } };
const now = () => performance.now() * 1000;

const add = (queue) => queue.add("noop", data, keep);

function finish(result) {
  console.log(JSON.stringify(result));
  process.exit(0);
}

async function enqueue() {
  const queue = new Queue("noop", { connection });
  await queue.waitUntilReady();
  const begin = now();
  for (let i = 0; i < n; i++) await add(queue);
  finish({ seconds: (now() - begin) / 1e6 });
}

// A worker whose `on` functions are told when a job starts, and when its end is recorded.
function makeWorker(on) {
  const worker = new Worker("noop", async () => on.start(now()), { connection, concurrency: 1 });
  worker.on("completed", () => on.recorded(now()));
  worker.on("error", (error) => { throw error; });
  return worker;
}

async function work() {
  const end = [];
  let begin, ended;
  makeWorker({
    start: (t) => { begin ??= t; ended = t; },
    recorded: (t) => {
      end.push(t - ended);
      if (end.length === n) finish({ seconds: (t - begin) / 1e6, end });
    },
  });
}

async function latency() {
  const queue = new Queue("noop", { connection });
  const events = new QueueEvents("noop", { connection });
  const result = { start: [], end: [], seen: [] };
  let sent, started, note;
  const worker = makeWorker({
    start: (t) => { result.start.push(t - sent); started = now(); },
    recorded: (t) => { result.end.push(t - started); note(); },
  });
  events.on("completed", () => { result.seen.push(now() - started); note(); });
  await Promise.all([queue, events, worker].map((x) => x.waitUntilReady()));
  await sleep(100);

  for (let i = 0; i < n; i++) {
    let left = 2;
    const both = new Promise((resolve) => (note = () => --left || resolve()));
    await sleep(2 + Math.random() * 4);
    sent = now();
    await add(queue);
    await both;
  }
  finish(result);
}

await { enqueue, work, latency }[mode]();
