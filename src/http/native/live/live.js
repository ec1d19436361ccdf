// The counts of one user as they change, for pages. No dependencies.
//
//   import { watch } from "https://HOST/v1/live.js";
//   const stop = watch({ url: "https://HOST/v1/live", token: async () => fetchMyToken(), onCounts: (counts) => show(counts) });
//
// token: called before each attempt, so that it can renew the token; without it the browser's cookies are sent.
// stamp: of an answer that the page has already: nothing comes until something is different. rooms: true: with rooms; counts.rooms
// is then a Map of all rows by room, so all of them come first, whatever the stamp. onState: hears "open" and "waiting".
// stop(): ends it. docs/live.md has all of it.
export function watch({ url = "/v1/live", token, stamp, rooms = false, onCounts, onState = () => {} }) {
  const SILENCE = 50_000, LONGEST = 30_000;
  const rows = new Map();
  // What rows and last stand for is the same: a page's own stamp says nothing of rows that are not here yet.
  let last = rooms ? undefined : stamp, parts = [], attempts = 0, heard = 0, retry = 0;
  let stopped = false, end = null, timer = null;

  // What the page's own functions throw is for the page to hear of; the stream goes on.
  const tell = (listener, what) => {
    try { if (!stopped) listener(what); } catch (error) { queueMicrotask(() => { throw error; }); }
  };
  const counts = (data) => {
    parts.push(data);
    // A stream that is cut between parts has said nothing.
    if (data.more) return;
    for (const part of parts) {
      if (part.all) rows.clear();
      for (const row of part.rooms ?? []) rows.set(row.room, row);
      for (const room of part.gone ?? []) rows.delete(room);
    }
    parts = [];
    last = data.stamp;
    const { gone, all, ...shown } = data;
    tell(onCounts, rooms ? { ...shown, rooms: rows } : shown);
  };
  const said = (name, data) => {
    heard = Date.now();
    if (name === "counts") counts(data);
    if (name === "counts" || name === "beat") attempts = 0;
    if (name === "bye") retry = data.retry_ms;
  };
  const block = (text) => {
    let name = "message", data = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      if (line.startsWith("data: ")) data += line.slice(6);
    }
    heard = Date.now();
    if (data) said(name, JSON.parse(data));
  };
  const streamed = async (address, headers, signal) => {
    const response = await fetch(address, { headers, signal, cache: "no-store", credentials: token ? "omit" : "include" });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    tell(onState, "open");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach(block);
    }
  };
  // For browsers whose fetch does not stream. It can't send headers, so the token goes into the address.
  const sourced = (address, signal) => new Promise((resolve) => {
    const source = new EventSource(address, { withCredentials: !token });
    const close = () => { source.close(); resolve(); };
    signal.addEventListener("abort", close);
    for (const name of ["counts", "beat", "bye"]) {
      source.addEventListener(name, (event) => said(name, JSON.parse(event.data)));
    }
    source.addEventListener("open", () => tell(onState, "open"));
    source.addEventListener("bye", close);
    source.addEventListener("error", close);
  });
  const connect = async () => {
    clearTimeout(timer);
    if (stopped || end) return;
    const own = (end = new AbortController());
    [heard, retry, parts] = [Date.now(), 0, []];
    const ended = new Promise((resolve) => own.signal.addEventListener("abort", resolve));
    const watchdog = setInterval(() => Date.now() - heard > SILENCE && own.abort(), 1_000);
    try {
      const key = token && (await Promise.race([token(), ended]));
      if (own.signal.aborted) throw own.signal.reason;
      const query = new URLSearchParams({ ...(rooms && { include: "rooms" }), ...(last && { stamp: last }) });
      const streams = typeof TextDecoderStream === "function" && "body" in Response.prototype;
      if (key && !streams) query.set("token", key);
      const address = `${url}?${query}`;
      if (streams) await streamed(address, key ? { Accept: "text/event-stream", Authorization: `Bearer ${key}` } : { Accept: "text/event-stream" }, own.signal);
      else await sourced(address, own.signal);
    } catch { /* The next attempt tells. */ }
    clearInterval(watchdog);
    end = null;
    if (stopped) return;
    tell(onState, "waiting");
    const backOff = Math.min(LONGEST, 500 * 2 ** attempts++) * (0.5 + Math.random() / 2);
    timer = setTimeout(connect, Math.max(retry, backOff));
  };
  // A page that was asleep may have a connection that is dead and does not know it.
  const awake = () => {
    if (document.visibilityState === "hidden") return;
    if (end && Date.now() - heard > SILENCE / 2) end.abort();
    else if (!end) connect();
  };
  document.addEventListener("visibilitychange", awake);
  addEventListener("online", awake);
  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    end?.abort();
    document.removeEventListener("visibilitychange", awake);
    removeEventListener("online", awake);
  };
}
