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

const add = (queue, jobId) => queue.add("noop", data, { ...keep, jobId });

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
  worker.on("completed", (job) => on.recorded(now(), job.id));
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
  const at = {};
  let awaited, note;
  const told = (what) => (t, id) => {
    if (id !== awaited) return;
    at[what] = t;
    note();
  };
  const worker = makeWorker({
    start: (t) => { at.start = t; at.end = now(); },
    recorded: told("recorded"),
  });
  const seen = told("seen");
  events.on("completed", ({ jobId }) => seen(now(), jobId));
  await Promise.all([queue, events, worker].map((x) => x.waitUntilReady()));

  // Send a job; true once it was recorded and seen, false after half a second.
  async function follow() {
    let left = 2;
    awaited = `job-${++sent}`;
    const both = new Promise((resolve) => (note = () => --left || resolve(true)));
    await add(queue, awaited);
    return Promise.race([both, sleep(500, false)]);
  }

  // The first jobs make the connections.
  let sent = 0;
  while (!(await follow()));
  const result = { start: [], end: [], seen: [] };
  for (let i = 0; i < n; i++) {
    await sleep(2 + Math.random() * 4);
    const begin = now();
    if (!(await follow())) throw new Error("the end of a job was not published");
    result.start.push(at.start - begin);
    result.end.push(at.recorded - at.end);
    result.seen.push(at.seen - at.end);
  }
  finish(result);
}

await { enqueue, work, latency }[mode]();
