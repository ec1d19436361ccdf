// The console. It asks the pod that served it, and nobody else, and only while the page can be seen. Whatever has a name in it
// becomes text of the page and never markup.
import { $, SECOND, TOKEN, ask, clock, day, h, plural, rate, say, seconds, show, whole } from "/console-dom.js";

const WINDOW = 600; // seconds of the plots

// ----------------------------------------------------------------------------------------------------------------- overview

/** The samples of the last ten minutes, column by column. */
let samples = null;
let overview = null;
/** The pod's clock less this browser's. */
let skew = 0;

const now = () => Date.now() + skew;

function addSamples(fresh) {
  if (!samples) samples = fresh;
  else for (const [name, column] of Object.entries(fresh)) (samples[name] ??= []).push(...column);
  const first = samples.at.findIndex((at) => at >= now() - (WINDOW + 6) * SECOND);
  if (first > 0) for (const column of Object.values(samples)) column.splice(0, first);
}

/** What a column comes to at each sample: itself, or per second since the sample before (none after a gap). */
function series(name, per) {
  const [at, column] = [samples.at, samples[name] ?? []];
  if (!per) return column;
  return column.map((value, i) => {
    const time = (at[i] - at[i - 1]) / SECOND;
    return i === 0 || !(time < 15) ? null : Math.max(0, value - column[i - 1]) / time;
  });
}

const TILES = [
  { id: "events", title: "Events", unit: "/s", per: true, more: (i) => `${whole(samples.deliveries[i])} deliveries` },
  { id: "reads", title: "Reads", unit: "/s", per: true, more: (i) => `${whole(samples.in_flight[i])} in flight` },
  { id: "pending", title: "Fan-outs waiting", alarm: (i) => samples.oldest[i] > 60, more: (i) => (samples.pending[i] ? `oldest ${seconds(samples.oldest[i])}` : "none is late") },
  { id: "redis_up", title: "Redis", strip: true, alarm: (i) => !samples.redis_up[i], more: (i) => `${whole(samples.redis_errors[i])} failed commands` },
  { id: "limited", title: "Limits hit", unit: "/s", per: true, more: (i) => `${whole(samples.limited[i])} calls refused` },
  { id: "failed", title: "Failed calls", unit: "/s", per: true, alarm: (i, v) => v > 0, more: (i) => `${whole(samples.overloaded[i])} too many at once` },
  { id: "connections", title: "Connections", more: () => "to the public address" },
  { id: "live_streams", title: "Live streams", more: () => "of counts" },
];

/** The sample that the page looks at: the last one, or the one before a moment. */
function lookedAt() {
  const back = Number($("moment").value) * SECOND;
  if (back === 0) return samples.at.length - 1;
  const moment = now() + back;
  return Math.max(0, samples.at.findLastIndex((at) => at <= moment));
}

const W = 300;
const H = 54;

function x(at) {
  return Math.round((1 - (now() - at) / (WINDOW * SECOND)) * W * 10) / 10;
}

function plot(tile, values, i) {
  const at = samples.at;
  const moment = Number($("moment").value) ? h("line", { class: "plot-moment", x1: x(at[i]), x2: x(at[i]), y1: 0, y2: H }) : null;
  const shape = { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true", "data-plot": "" };
  if (tile.strip) {
    const width = (3.6 * W) / WINDOW;
    const bars = values.map((up, n) =>
      h("rect", { class: up ? "plot-good" : "plot-bad", x: x(at[n]) - width, width, y: up ? H - 12 : H - 30, height: up ? 12 : 30 }));
    return h("svg", shape, bars, moment);
  }
  const top = Math.max(0, ...values.filter((value) => value !== null)) || 1;
  const y = (value) => Math.round((H - 2 - (value / top) * (H - 6)) * 10) / 10;
  let line = "";
  let area = "";
  let start = null;
  values.forEach((value, n) => {
    const gap = value === null || (n > 0 && at[n] - at[n - 1] > 15 * SECOND);
    if (gap && start !== null) {
      area += `L${x(at[n - 1])} ${H}Z`;
      start = null;
    }
    if (value === null) return;
    line += `${start === null ? "M" : "L"}${x(at[n])} ${y(value)}`;
    area += start === null ? `M${x(at[n])} ${H}L${x(at[n])} ${y(value)}` : `L${x(at[n])} ${y(value)}`;
    start = n;
  });
  if (start !== null) area += `L${x(at[at.length - 1])} ${H}Z`;
  return h("svg", shape,
    h("line", { class: "plot-base", x1: 0, x2: W, y1: H - 0.5, y2: H - 0.5 }),
    area && h("path", { class: "plot-area", d: area }),
    line && h("path", { class: "plot-line", d: line }),
    moment);
}

function tileOf(tile, i) {
  const values = series(tile.id, tile.per);
  const value = values[i];
  let text = value === null || value === undefined ? "–" : tile.per ? rate(value) : whole(value);
  let scale;
  if (tile.strip) {
    const down = values.filter((up) => !up).length * 3;
    text = i === values.length - 1 ? overview.pod.redis : value ? "up" : "not up";
    scale = down ? `not up for ${seconds(down)}` : "up all along";
  } else {
    const most = Math.max(0, ...values.filter((one) => one !== null));
    scale = `most ${tile.per ? rate(most) : whole(most)}`;
  }
  return h("article", { class: tile.alarm?.(i, value) ? "tile alarm" : "tile", "data-key": tile.id, id: `tile-${tile.id}` },
    h("h2", null, tile.title),
    h("p", { class: "now" }, h("span", null, text), tile.unit && h("small", null, tile.unit)),
    h("p", { class: "more" }, tile.more(i)),
    plot(tile, values, i),
    h("p", { class: "axis" }, h("span", null, "−10 min"), h("span", null, scale)));
}

function showOverview() {
  if (!samples || !overview) return;
  if (samples.at.length === 0) {
    show($("tiles"), h("p", { class: "soft" }, "The first sample is being taken."));
    return;
  }
  const i = lookedAt();
  const back = Number($("moment").value);
  const ago = Math.round((now() - samples.at[i]) / SECOND);
  $("moment-text").textContent = back ? `${clock(samples.at[i])}, ${seconds(Math.max(ago, 0))} ago` : "now";
  $("moment").setAttribute("aria-valuetext", back ? `${seconds(-back)} ago` : "now");
  show($("tiles"), TILES.map((tile) => tileOf(tile, i)));
  const last = samples.at.length - 1;
  show($("pods"),
    h("div", { class: "scroll" }, h("table", { class: "cards" },
      h("thead", null, h("tr", null, ["Pod", "State", "Redis", "Data", "Version", "Running for", "Finished for others"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, h("tr", null,
        h("th", { scope: "row" }, location.host),
        h("td", { "data-is": "State" }, overview.pod.ready ? overview.pod.server : `${overview.pod.server}, not ready`),
        h("td", { "data-is": "Redis" }, overview.pod.redis),
        h("td", { "data-is": "Data" }, overview.pod.schema),
        h("td", { "data-is": "Version" }, overview.version),
        h("td", { "data-is": "Running for" }, seconds(Math.max(0, now() - overview.started) / SECOND)),
        h("td", { "data-is": "Finished for others" }, plural(samples.recovered[last], "fan-out")))))),
    h("p", { class: "soft below" }, "One pod is seen: the one that this page comes from. Pods register nowhere. Each finds in Redis what another one has left, and finishes it; the last column counts that."));
}

function showState() {
  const pod = overview?.pod;
  if (!pod) return;
  const well = pod.ready && pod.redis === "up" && pod.schema === "current";
  show($("state"),
    h("span", null, h("i", { class: well ? "dot" : "dot bad", "aria-hidden": "true" }), h("b", null, pod.ready ? pod.server : `${pod.server}, not ready`)),
    h("span", null, "Redis ", h("b", null, pod.redis)),
    h("span", null, "data ", h("b", null, pod.schema)));
  trouble(pod.reason && `The pod says: ${pod.reason}`);
}

function trouble(text) {
  const place = $("trouble");
  place.hidden = !text;
  if (place.textContent !== (text || "")) place.textContent = text || "";
}

async function pollOverview() {
  const since = samples?.at.at(-1) ?? 0;
  overview = await ask(`/console/overview?since=${since}`);
  skew = overview.now - Date.now();
  addSamples(overview.samples);
  $("leave").hidden = !overview.locked;
  const apps = $("apps");
  if (apps.children.length !== overview.apps.length) {
    show(apps, overview.apps.map((app) => h("option", { value: app })));
  }
  if (!$("app").value && overview.apps.length) $("app").value = overview.apps[0];
  showState();
  if (route().view === "overview") showOverview();
}

// ---------------------------------------------------------------------------------------------------------------- inspector

/** What is shown: of whom, what was found, what a check said. */
let subject = null;
let filter = "";
let onlyUnread = false;

const KINDS = ["direct", "group", "supergroup"];

function copied(text) {
  return h("div", { class: "line" }, h("code", { tabindex: 0 }, text), h("button", { type: "button", class: "quiet small", "data-copy": text }, "Copy"));
}

function lines(list, key) {
  const all = [list].flat().filter(Boolean);
  if (all.length === 0) return null;
  return h("details", { "data-key": key }, h("summary", null, "redis-cli"), h("div", { class: "lines" }, all.map(copied)));
}

const count = (n) => (n ? h("span", { class: "count", "data-live": "" }, whole(n)) : h("span", { class: "zero", "data-live": "" }, "0"));

function readTo(read, head) {
  const part = head > 0 ? Math.min(1, Math.max(0, read / head)) : 1;
  return h("span", { class: "read-to" },
    h("span", { "data-live": "" }, `${whole(read)} of ${whole(head)}`),
    head > 0 && h("i", { "aria-hidden": "true" }, h("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none" }, h("rect", { width: Math.round(part * 100), height: 4 }))));
}

function chips(list) {
  return list.map((text) => h("span", { class: "chip", title: text }, text));
}

function preferences(set) {
  return Object.entries(set ?? {}).map(([name, value]) => {
    if (value === true) return name;
    return `${name}: ${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value}`;
  });
}

function look(what, name, text) {
  return h("a", { class: "id", href: address(what, subject.app, name) }, text ?? name);
}

function roomRow(row) {
  const set = preferences(row.preferences);
  const facts = [["holes", row.holes], ["epoch", row.epoch], ["revision", row.rev], ["reset", row.reset],
    ["made", row.created && day(row.created)], ["last message", row.last_time && day(row.last_time)]];
  return [h("tr", { role: "row", "data-key": `room ${row.room}` },
    h("th", { scope: "row", role: "rowheader" }, look("room", row.room, row.peer ? `with ${row.peer}` : row.room)),
    h("td", { role: "cell", class: "n", "data-is": "Unread" }, count(row.unread)),
    h("td", { role: "cell", class: "n", "data-is": "Mentions" }, count(row.mentions)),
    h("td", { role: "cell", "data-is": "Read" }, readTo(row.read, row.head)),
    h("td", { role: "cell", "data-is": "Kind" }, [row.kind, row.state === "joined" ? null : row.state, row.active ? null : "inactive"].filter(Boolean).join(", ")),
    h("td", { role: "cell", "data-is": "Tags", class: row.tags.length || row.custom_type ? null : "none" }, h("span", null, chips([row.custom_type && `type ${row.custom_type}`, ...row.tags].filter(Boolean)))),
    h("td", { role: "cell", "data-is": "Preferences", class: set.length || row.count !== "all" ? null : "none" }, h("span", null, chips([row.count === "all" ? null : `adds ${row.count}`, ...set.filter((one) => !one.startsWith("count:"))].filter(Boolean)))),
    more(`room ${row.room}`, row.room),
  ), below(`room ${row.room}`, 8,
    h("dl", { class: "small-facts" }, facts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, String(value))))),
    row.redis_cli)];
}

/** The rows that are open, by their keys. */
const opened = new Set();

function more(key, name) {
  const isOpen = opened.has(key);
  return h("td", { role: "cell", class: "n" }, h("button", { type: "button", class: "quiet small", "data-more": key, "aria-expanded": String(isOpen), "aria-label": `${isOpen ? "Less" : "More"} of ${name}` }, isOpen ? "Less" : "More"));
}

/** The row below an open one. */
function below(key, columns, body, list) {
  if (!opened.has(key)) return null;
  return h("tr", { role: "row", class: "more", "data-key": `${key} more` },
    h("td", { role: "cell", class: "wide", colspan: columns }, body, h("div", { class: "lines" }, [list].flat().map(copied))));
}

function part(title, key, of, body, extra) {
  return h("section", { "data-key": key },
    h("div", { class: "part" }, h("h3", null, title), extra),
    body,
    of && lines(of.redis_cli, `${key} lines`));
}

function facts(fields) {
  const all = Object.entries(fields ?? {});
  if (all.length === 0) return h("p", { class: "soft" }, "none");
  return h("dl", { class: "facts" }, all.map(([name, value]) => h("div", { "data-key": name }, h("dt", null, name), h("dd", { "data-live": "" }, String(value)))));
}

/** The title of a part that has only some of its fields. */
const partly = (title, of) => (of.total ? `${title}: ${whole(Object.keys(of.fields).length)} of ${whole(of.total)}` : title);

function unreadable(of) {
  if (!of) return null;
  return part(`Can't be read: ${whole(of.count)}`, "unreadable", null, rows(["Key", "Field", "Why", "Stored"], of.list.map((row) => [row.key, row.field, row.reason, row.stored])));
}

function rows(heads, list) {
  return h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, list.map((row) => h("tr", null, row.map((cell) => h("td", { class: "id" }, cell instanceof Node ? cell : String(cell ?? "–"))))))));
}

function verdict() {
  const checked = subject.checked;
  if (!checked) return null;
  if (checked.under_way) return h("div", { class: "verdict", "data-key": "verdict" }, "Every count is being worked out anew from the positions, and every room of the app is asked …");
  if (checked.error) return h("div", { class: "verdict bad", "data-key": "verdict" }, checked.error);
  const asked = `${plural(checked.rooms_asked, "room")} asked, at ${clock(checked.at)}`;
  if (checked.clean) return h("div", { class: "verdict", "data-key": "verdict" }, `No drift: every count follows from the positions. ${asked}.`);
  if (!checked.drift.length && !checked.unreadable_total) return h("div", { class: "verdict", "data-key": "verdict" }, `Not judged, since fan-outs stayed under way. ${asked}. Try again.`);
  return h("div", { class: "verdict bad", "data-key": "verdict" },
    h("p", null, `${plural(checked.drift.length, "field")} ${checked.drift.length === 1 ? "drifts" : "drift"}, ${whole(checked.unreadable_total)} can't be read. ${asked}. `, h("code", null, "unread rebuild"), " repairs it."),
    checked.drift.length > 0 && rows(["Key", "Field", "Part", "Stored", "Expected"], checked.drift.map((row) => [row.key, row.field, row.part, row.stored, row.expected])),
    checked.unreadable.length > 0 && rows(["Key", "Field", "Why", "Stored"], checked.unreadable.map((row) => [row.key, row.field, row.reason, row.stored])));
}

function who(note, button) {
  return h("div", { class: "who", "data-key": "who" },
    h("h2", null, subject.name),
    h("span", { class: "soft" }, `${subject.what} of ${subject.app}`),
    note && h("span", { class: "soft" }, note),
    h("div", { class: "right" },
      h("span", { class: "soft" }, h("i", { class: subject.late ? "dot bad" : "dot", "aria-hidden": "true" }), subject.late ? "not up to date" : "live"),
      button));
}

function sums(totals) {
  const titles = { messages: "Unread messages", mentions: "Mentions", invitations: "Invitations", unread_rooms: "Unread rooms" };
  return h("dl", { class: "sums", "data-key": "sums" }, Object.entries(titles).map(([name, title]) => {
    const of = totals[name];
    return h("div", { class: of.total ? "sum some" : "sum", id: `sum-${name}` },
      h("dt", null, title),
      h("dd", null, h("span", { "data-live": "" }, whole(of.total))),
      h("dd", { class: "by" }, KINDS.map((kind) => `${whole(of[kind])} ${kind}`).join(", ")));
  }));
}

function showUser({ totals, stored, passwords }) {
  const all = [...stored.rooms.list, ...stored.supergroups.list];
  const shown = all.filter((row) => !onlyUnread || row.unread || row.mentions);
  const total = stored.rooms.total + stored.supergroups.total;
  const extra = h("div", { class: "filter" },
    h("label", { for: "filter" }, "Find"),
    h("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false" }),
    h("label", null, h("input", { id: "only-unread", type: "checkbox" }), " unread only"));
  const table = shown.length === 0
    ? h("p", { class: "empty" }, total ? "No such room." : "In no room.")
    : h("div", { class: "scroll" }, h("table", { class: "cards", role: "table", "aria-label": "Rooms" },
      h("thead", null, h("tr", { role: "row" }, ["Room", "Unread", "Mentions", "Read", "Kind", "Tags", "Preferences", ""].map((name) => h("th", { scope: "col", role: "columnheader", class: ["Unread", "Mentions"].includes(name) ? "n" : null }, name || h("span", { class: "unseen" }, "More"))))),
      h("tbody", null, shown.map(roomRow))));
  const known = stored.known_since && `known since ${stored.known_since.replace("T", " ").replace("Z", " UTC")}`;
  show($("found"),
    who([known, stored.deletion_under_way && "is being deleted"].filter(Boolean).join(", "), h("button", { type: "button", class: "quiet small", id: "verify", disabled: subject.checked?.under_way }, "Verify")),
    verdict(),
    totals ? sums(totals) : h("p", { class: "empty", "data-key": "sums" }, "Deleted, or never in a room: an app is told that there is no such user."),
    part(`Rooms: ${shown.length === total ? whole(total) : `${whole(shown.length)} of ${whole(total)}`}`, "rooms", null, table, extra),
    h("div", { "data-key": "rooms lines", class: "lines" }, lines([stored.rooms.redis_cli, stored.supergroups.redis_cli, stored.preferences.redis_cli], "all rooms")),
    part(partly("Plain counts", stored.counts), "counts", stored.counts, facts(stored.counts.fields)),
    part(partly("Rooms by tag, type and peer", stored.references), "references", stored.references, facts(stored.references.fields)),
    part(`Holes and mentions: ${whole(stored.marks.count)}`, "marks", stored.marks, null),
    stored.tombstones.list.length > 0 && part("Tombstones", "tombstones", stored.tombstones, rows(["Room", "Since", "Epoch"], stored.tombstones.list.map((row) => [row.room, row.since, row.epoch]))),
    unreadable(stored.unreadable),
    passwords && h("p", { class: "soft", "data-key": "passwords" }, `The redis-cli lines want ${passwords}.`));
  const field = $("filter");
  if (field && field.value !== filter && document.activeElement !== field) field.value = filter;
  $("only-unread").checked = onlyUnread;
}

const MOMENTS = new Set(["rev", "born", "mrev", "parted", "cleared", "last_at"]);

function showRoom({ stored, passwords }) {
  const head = Number(stored.meta.fields.head ?? 0);
  const meta = Object.fromEntries(Object.entries(stored.meta.fields).map(([name, value]) => {
    const n = Number(value);
    if (MOMENTS.has(name) && n > 1e15) return [name, `${day(n / 1000)}`];
    if ((name === "created" || name === "last_time") && n > 1e12) return [name, day(n)];
    return [name, value === "" ? "–" : value];
  }));
  const list = stored.members.list;
  const members = list.length === 0 ? h("p", { class: "empty" }, "No members.") : h("div", { class: "scroll" }, h("table", { class: "cards", role: "table", "aria-label": "Members" },
    h("thead", null, h("tr", { role: "row" }, ["User", "State", "Unread", "Read", "Base", "Epoch", ""].map((name) => h("th", { scope: "col", role: "columnheader", class: ["Unread", "Base", "Epoch"].includes(name) ? "n" : null }, name || h("span", { class: "unseen" }, "More"))))),
    h("tbody", null, list.map((row) => [h("tr", { role: "row", "data-key": `member ${row.user}` },
      h("th", { scope: "row", role: "rowheader" }, look("user", row.user)),
      h("td", { role: "cell", "data-is": "State" }, row.state),
      h("td", { role: "cell", class: "n", "data-is": "Unread" }, row.unread === null ? h("span", { class: "soft" }, "when asked") : count(row.unread)),
      h("td", { role: "cell", "data-is": "Read" }, row.read === null ? "–" : readTo(row.read, head)),
      h("td", { role: "cell", class: "n", "data-is": "Base" }, whole(row.base)),
      h("td", { role: "cell", class: "n", "data-is": "Epoch" }, day(row.epoch / 1000)),
      more(`member ${row.user}`, row.user)), below(`member ${row.user}`, 7, null, row.redis_cli)]))));
  show($("found"),
    who(null, null),
    h("dl", { class: "sums", "data-key": "sums" }, [["Head", head], ["Members", stored.members.count], ["Fan-outs waiting", stored.pending.count], ["Remembered messages", stored.history.count]].map(([name, n]) =>
      h("div", { class: "sum" }, h("dt", null, name), h("dd", null, h("span", { "data-live": "" }, whole(n)))))),
    part(list.length < stored.members.count ? `Members: the first ${whole(list.length)} of ${whole(stored.members.count)}` : `Members: ${whole(stored.members.count)}`, "members", stored.members, members),
    part("Details and numbers", "meta", stored.meta, facts(meta)),
    part(`Jobs: ${whole(stored.pending.count)}`, "pending", stored.pending, stored.pending.list.length > 0 && rows(["Job", "Accepted", "Lease until", "Audience"], stored.pending.list.map((row) => [row.job, row.accepted, row.lease_until, row.audience]))),
    part(`History: ${whole(stored.history.count)}, recalled: ${whole(stored.recalled.count)}`, "history", { redis_cli: [stored.history.redis_cli, stored.recalled.redis_cli] }, null),
    unreadable(stored.unreadable),
    passwords && h("p", { class: "soft", "data-key": "passwords" }, `The redis-cli lines want ${passwords}.`));
}

function showSubject() {
  if (!subject?.found) return;
  if (subject.what === "user") showUser(subject.found);
  else showRoom(subject.found);
}

async function pollSubject() {
  const asked = subject;
  const query = new URLSearchParams({ app: asked.app, [asked.what]: asked.name });
  if (filter) query.set("find", filter);
  try {
    const found = await ask(`/console/${asked.what}?${query}`);
    if (asked !== subject) return;
    const before = asked.found?.totals?.messages.total;
    const after = found.totals?.messages.total;
    asked.found = found;
    asked.late = false;
    if (before !== undefined && after !== before) say(`${asked.name}: ${plural(after ?? 0, "unread message")}`);
    showSubject();
  } catch (error) {
    if (asked !== subject) return;
    if (error.status === 401) throw error;
    asked.late = true;
    if (asked.found && error.status !== 404) {
      showSubject();
      trouble(error.message);
      return;
    }
    asked.found = null;
    show($("found"), h("p", { class: "empty", role: "alert" }, error.status === 404 ? `Nothing is kept of ${asked.what} “${asked.name}” in app “${asked.app}”.` : error.message));
  }
}

async function verifySubject() {
  const asked = subject;
  asked.checked = { under_way: true };
  showSubject();
  try {
    asked.checked = await ask("/console/verify", { app: asked.app, user: asked.name });
    asked.checked.at = Date.now();
    say(asked.checked.clean ? "No drift." : "Not clean: see below the name.", true);
  } catch (error) {
    asked.checked = { error: error.message };
    if (error.status === 401) signIn(error);
  }
  if (asked === subject) showSubject();
}

// -------------------------------------------------------------------------------------------------------- where the page is

function address(what, app, name) {
  return `#/${what}?${new URLSearchParams({ app, id: name })}`;
}

function route() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const what = path.replace(/^\//, "");
  if (what !== "user" && what !== "room") return { view: "overview" };
  const given = new URLSearchParams(query ?? "");
  return { view: "inspector", what, app: given.get("app") ?? "", name: given.get("id") ?? "" };
}

let locked = false;

function go(byUser) {
  const to = route();
  $("login").hidden = !locked;
  for (const view of ["overview", "inspector"]) $(view).hidden = locked || to.view !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === to.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (locked) return;
  if (to.view === "overview") {
    document.title = "Overview – unread console";
    subject = null;
    showOverview();
    if (byUser) $("overview-title").focus();
    return;
  }
  document.title = to.name ? `${to.name} – unread console` : "Inspector – unread console";
  if (to.app) $("app").value = to.app;
  document.querySelector(`input[name=what][value=${to.what}]`).checked = true;
  const same = subject && subject.what === to.what && subject.app === to.app && subject.name === to.name;
  if (to.name) $("name").value = to.name;
  if (!same) {
    filter = "";
    opened.clear();
    subject = to.name && to.app ? { what: to.what, app: to.app, name: to.name } : null;
    show($("found"), subject ? h("p", { class: "soft", "data-key": "wait" }, "Looking …") : h("p", { class: "empty", "data-key": "hint" }, "Name a user or a room: its counts change here as they change in Redis, each with the redis-cli line that shows the same. Nothing is written."));
    tick();
  }
  if (byUser && !to.name) $("name").focus();
}

// ------------------------------------------------------------------------------------------------------------- asking again

let turn = 0;
let nextOverview = 0;
let lately = 0;

/** Asks now and then again after a while: a second for a subject, three for the overview; longer where answers take long. */
async function tick() {
  const mine = ++turn;
  clearTimeout(lately);
  if (locked || document.visibilityState === "hidden") return;
  const begun = performance.now();
  try {
    if (Date.now() >= nextOverview) {
      await pollOverview();
      nextOverview = Date.now() + 3 * SECOND - 50;
    }
    if (subject) await pollSubject();
  } catch (error) {
    if (error.status === 401 || (error.status === 429 && !overview)) return signIn(error);
    trouble(error.message);
  }
  if (mine !== turn) return;
  const took = performance.now() - begun;
  lately = setTimeout(tick, Math.max(SECOND - took, 3 * took, 200));
}

function signIn(error) {
  const wrong = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  locked = true;
  samples = null;
  overview = null;
  subject = null;
  $("leave").hidden = true;
  show($("found"));
  show($("tiles"));
  show($("pods"));
  show($("state"));
  trouble("");
  go(false);
  $("login-wrong").textContent = wrong ? (error?.status === 429 ? error.message : "That is not the admin token.") : "";
  $("token").focus();
}

// ------------------------------------------------------------------------------------------------------------------- events

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  locked = false;
  nextOverview = 0;
  go(true);
  tick();
});

$("leave").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  signIn(null);
});

$("look-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const what = document.querySelector("input[name=what]:checked").value;
  const to = address(what, $("app").value.trim(), $("name").value);
  if (location.hash === to) tick();
  else location.hash = to;
});

$("moment").addEventListener("input", showOverview);

$("tiles").addEventListener("pointermove", (event) => {
  const plotted = event.target.closest("[data-plot]");
  if (!plotted || event.pointerType === "touch") return;
  const box = plotted.getBoundingClientRect();
  const back = Math.round((((event.clientX - box.left) / box.width) * WINDOW - WINDOW) / 3) * 3;
  $("moment").value = String(Math.min(-3, Math.max(-WINDOW, back)));
  showOverview();
});

$("tiles").addEventListener("pointerleave", () => {
  if (document.activeElement === $("moment")) return;
  $("moment").value = "0";
  showOverview();
});

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    try {
      await navigator.clipboard.writeText(copy.dataset.copy);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(copy.parentElement.querySelector("code"));
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }
  const key = event.target.closest("[data-more]")?.dataset.more;
  if (key) {
    if (!opened.delete(key)) opened.add(key);
    showSubject();
  }
  if (event.target.closest("#verify") && subject) verifySubject();
});

$("found").addEventListener("input", (event) => {
  if (event.target.id === "filter") {
    filter = event.target.value;
    tick();
  }
});

$("found").addEventListener("change", (event) => {
  if (event.target.id === "only-unread") {
    onlyUnread = event.target.checked;
    showSubject();
  }
});

addEventListener("hashchange", () => go(true));
document.addEventListener("visibilitychange", tick);
addEventListener("online", tick);

go(false);
tick();
