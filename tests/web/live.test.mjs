// The client for pages, live.js, against servers that end their streams wherever it hurts. It needs no browser.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { resolve } from "node:path";
import { afterEach, test } from "node:test";

const SCRIPT = process.env.LIVE_JS ?? resolve(import.meta.dirname, "../../src/http/native/live/live.js");
const source = await readFile(SCRIPT, "utf8");
const module = (text) => import(`data:text/javascript,${encodeURIComponent(text)}`);
const { watch } = await module(source);

// What a page has and node has not.
globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
for (const name of ["addEventListener", "removeEventListener"]) globalThis[name] ??= () => {};

/** Waits until `look` answers something. */
async function until(what, look) {
  const end = Date.now() + 20_000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

const open = [];
afterEach(() => open.splice(0).forEach((end) => end()));

/** Watches with the first of these streams, then the second, and so on. A stream is told by a function that says counts. */
async function watched(streams, options, using = watch) {
  const asked = [];
  const server = createServer((request, response) => {
    const stream = streams[asked.length] ?? (() => {});
    asked.push(new URL(request.url, "http://host").searchParams.get("stamp"));
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(": unread\n\n");
    const say = (counts) => new Promise((done) => response.write(`event: counts\ndata: ${JSON.stringify({ user: "a", ...counts })}\n\n`, done));
    stream(say, () => response.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = using({ url: `http://127.0.0.1:${server.address().port}/v1/live`, token: async () => "t", ...options });
  open.push(() => (stop(), server.closeAllConnections(), server.close()));
  return asked;
}

const row = (room, messages) => ({ room, messages });
const list = (rooms) => [...rooms.values()].map((one) => `${one.room}:${one.messages}`).join(" ");

test("with rooms, a page's own stamp is not sent before all rows are here", async () => {
  const seen = [];
  const all = async (say, cut) => {
    await say({ stamp: "S1", all: true, rooms: [row("a", 1), row("b", 0)] });
    await until("the first counts", () => seen.length > 0);
    cut();
  };
  const asked = await watched([all], { rooms: true, stamp: "S0", onCounts: (counts) => seen.push(list(counts.rooms)) });
  await until("the second stream", () => asked.length > 1);
  assert.deepEqual(asked.slice(0, 2), [null, "S1"]);
  assert.deepEqual(seen, ["a:1 b:0"]);
});

test("without rooms, a page's own stamp is sent", async () => {
  const asked = await watched([], { stamp: "S0", onCounts() {} });
  await until("the stream", () => asked.length > 0);
  assert.equal(asked[0], "S0");
});

test("parts count when the last of them is here: a cut between them changes nothing", async () => {
  const seen = [];
  let rooms;
  const first = async (say, cut) => {
    await say({ stamp: "S1", all: true, rooms: [row("a", 1)], more: true });
    await say({ stamp: "S1", rooms: [row("b", 1)] });
    await until("the first counts", () => seen.length > 0);
    await say({ stamp: "S2", rooms: [row("a", 2)], gone: ["b"], more: true });
    cut();
  };
  // By then the counts are those of S1 again, so this stream leaves them out; the next change is one to S1.
  const second = async (say, cut) => {
    await say({ stamp: "S3", rooms: [row("c", 5)] });
    await until("the second counts", () => seen.length > 1);
    await say({ stamp: "S4", all: true, rooms: [row("z", 1)], more: true });
    cut();
  };
  const third = (say) => say({ stamp: "S5", all: true, rooms: [row("d", 1)] });
  const onCounts = (counts) => seen.push(list((rooms = counts.rooms)));
  const asked = await watched([first, second, third], { rooms: true, onCounts });
  await until("the third counts", () => seen.length > 2);
  assert.deepEqual(seen, ["a:1 b:1", "a:1 b:1 c:5", "d:1"]);
  assert.equal(list(rooms), "d:1");
  assert.deepEqual(asked, [null, "S1", "S3"]);
});

test("a token that never comes does not end the attempts", async () => {
  assert.match(source, /SILENCE = 50_000/);
  const hasty = await module(source.replace("SILENCE = 50_000", "SILENCE = 500"));
  let calls = 0;
  const states = [];
  const token = () => ((calls += 1) < 3 ? new Promise(() => {}) : Promise.resolve("t"));
  const asked = await watched([], { token, onCounts() {}, onState: (state) => states.push(state) }, hasty.watch);
  await until("the third attempt", () => asked.length > 0);
  assert.equal(states.slice(0, 3).join(" "), "waiting waiting open");
});

test("what the page's functions throw reaches the page, and the stream goes on", async () => {
  const thrown = [];
  const hear = (error) => thrown.push(error.message);
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException").on("uncaughtException", hear);
  open.push(() => {
    process.off("uncaughtException", hear);
    others.forEach((one) => process.on("uncaughtException", one));
  });
  const seen = [];
  const stream = async (say) => {
    await say({ stamp: "S1" });
    await until("the first counts", () => seen.length > 0);
    await say({ stamp: "S2" });
  };
  const asked = await watched([stream], {
    onCounts: (counts) => {
      seen.push(counts.stamp);
      throw new Error(counts.stamp);
    },
    onState: (state) => {
      throw new Error(state);
    },
  });
  await until("the second exception", () => thrown.length > 2);
  assert.deepEqual([seen, thrown, asked], [["S1", "S2"], ["open", "S1", "S2"], [null]]);
});
