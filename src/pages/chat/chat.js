// The demo's chat. It plays the back end (it sends events) and two users' devices (each watches its own counts). Messages are
// shown as they were sent from this page: unread counts messages and does not keep them.
import { watch } from "./counts.js";

const $ = (id) => document.getElementById(id);
const NAMES = { alice: "Alice", bob: "Bob", orders: "Orders", family: "Family", "town-hall": "Town hall" };
const ORDER = ["direct", "group", "supergroup"];
const USERS = ["alice", "bob"];
const OTHER = { alice: "bob", bob: "alice" };

let session = null;
/** By user: the counts as they came last. */
const counts = {};
/** By user: the room that is open. */
const open = {};
/** By room: what was sent from this page. */
const messages = new Map();
/** Events whose effect is awaited: by whom, and since when. */
let awaited = null;

function h(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// -------------------------------------------------------------------------------------------------------------- the back end

async function renew() {
  const answer = await fetch("/demo/session", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the demo answered ${answer.status}`);
  session = { ...(await answer.json()), at: Date.now() };
}

async function token(user) {
  const age = session ? (Date.now() - session.at) / 1000 : Infinity;
  if (!session || age > session.ttl_seconds - 60) await renew();
  return session.tokens[user];
}

let number = 0;
async function send(event, watchers) {
  const begun = performance.now();
  awaited = { watchers: new Set(watchers), begun, shown: 0 };
  $("sent").textContent = `POST /v1/events\n${JSON.stringify(event, null, 1).replace(/\n\s*/g, " ")}`;
  $("took").textContent = "";
  try {
    const answer = await fetch("/v1/events", {
      method: "POST",
      headers: { Authorization: `Bearer ${session.server_key}`, "Content-Type": "application/json" },
      body: JSON.stringify(event),
    });
    const body = await answer.json();
    const result = body.results?.[0];
    if (!answer.ok || result.status === "rejected") throw new Error(result?.error.message ?? body.detail);
    $("sent").textContent += `\n${answer.status} ${JSON.stringify(result)}`;
    $("trouble").hidden = true;
    return result;
  } catch (error) {
    $("trouble").textContent = `The event was not taken: ${error.message}`;
    $("trouble").hidden = false;
    return null;
  }
}

async function say(user, text, mention) {
  const room = open[user];
  const id = `page-${Date.now()}-${(number += 1)}`;
  const to = mention ? [OTHER[user]] : [];
  const event = { type: "message.sent", room, sender: user, id, text, ...(mention ? { mentions: to } : {}) };
  const list = messages.get(room) ?? [];
  list.push({ id, user, text, mention });
  messages.set(room, list);
  USERS.forEach(draw);
  const result = await send(event, [OTHER[user]]);
  const sent = list.find((one) => one.id === id);
  if (result) sent.position = result.position;
  else list.splice(list.indexOf(sent), 1);
  USERS.forEach(draw);
}

const read = (user) => send({ type: "room.read", room: open[user], user }, [user]);

function unread(user) {
  const room = open[user];
  // A row of the stream may not know yet of a message that changes no count, such as the user's own.
  const positions = (messages.get(room) ?? []).map((one) => one.position ?? 0);
  const last = Math.max(counts[user].rooms[room].head, ...positions);
  return send({ type: "room.unread", room, user, from_position: last }, [user]);
}

// ----------------------------------------------------------------------------------------------------------------- the users

/** The rooms that both are in, direct ones first. */
function rooms() {
  const [one, two] = USERS.map((user) => counts[user]?.rooms ?? {});
  const shared = Object.values(one).filter((row) => two[row.room]);
  const rank = (row) => ORDER.indexOf(row.kind) * 100 + (NAMES[row.room] ? 0 : 10);
  return shared.sort((a, b) => rank(a) - rank(b) || a.room.localeCompare(b.room)).slice(0, 5);
}

const title = (user, row) => (row.kind === "direct" ? NAMES[OTHER[user]] : (NAMES[row.room] ?? row.room));

function badge(n, of, extra) {
  return h("span", { class: `badge ${extra ?? ""} ${n ? "" : "none"}` }, h("span", { "aria-hidden": "true" }, n > 999 ? "999+" : String(n)), h("span", { class: "unseen" }, `${n} ${of}${n === 1 ? "" : "s"}`));
}

function build(user) {
  const name = NAMES[user];
  const id = (part) => `${user}-${part}`;
  const panel = h("section", { class: `user ${user}`, "aria-labelledby": id("title"), id: user },
    h("div", { class: "top" },
      h("span", { class: "face", "aria-hidden": "true" }, name[0]),
      h("h2", { id: id("title") }, name),
      h("div", { class: "totals", id: id("totals"), role: "status" })),
    h("div", { class: "rooms", role: "group", "aria-label": `Rooms of ${name}`, id: id("rooms") }),
    h("div", { class: "talk", role: "log", "aria-label": `Messages as ${name} sees them`, tabindex: 0 }, h("ol", { id: id("talk") })),
    h("form", { class: "say", id: id("say") },
      h("label", { class: "unseen", for: id("text") }, `Message from ${name}`),
      h("input", { id: id("text"), autocomplete: "off", maxlength: 300, placeholder: `Message from ${name}` }),
      h("label", { class: "mention" }, h("input", { type: "checkbox", id: id("mention") }), ` @${OTHER[user]}`),
      h("button", { type: "submit" }, "Send")),
    h("div", { class: "acts" },
      h("button", { type: "button", class: "quiet", id: id("read") }, "Mark as read"),
      h("button", { type: "button", class: "quiet", id: id("unread") }, "Mark last as unread")));
  $("users").append(panel);
  $(id("say")).addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $(id("text")).value.trim() || "Hello!";
    const mention = $(id("mention")).checked;
    $(id("text")).value = "";
    $(id("mention")).checked = false;
    if (open[user]) say(user, mention ? `@${OTHER[user]} ${text}` : text, mention);
  });
  $(id("read")).addEventListener("click", () => open[user] && read(user));
  $(id("unread")).addEventListener("click", () => open[user] && unread(user));
}

function draw(user) {
  const mine = counts[user];
  if (!mine) return;
  const shared = rooms();
  if (!shared.some((row) => row.room === open[user])) open[user] = shared[0]?.room;
  const totals = [badge(mine.messages.total, "unread message", "total"), mine.mentions.total ? badge(mine.mentions.total, "mention", "at") : null];
  fill($(`${user}-totals`), totals);
  const bar = $(`${user}-rooms`);
  const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.room : null;
  bar.replaceChildren(...shared.map((row) => {
    const own = mine.rooms[row.room];
    const button = h("button", { type: "button", "data-room": row.room, "aria-pressed": String(open[user] === row.room) },
      h("span", null, title(user, row)),
      own.mentions ? badge(own.mentions, "mention", "at") : null,
      own.messages ? badge(own.messages, "unread message") : null);
    button.addEventListener("click", () => {
      open[user] = row.room;
      draw(user);
    });
    return button;
  }));
  // So that the badges of the rooms come to that of the user.
  const elsewhere = mine.messages.total - shared.reduce((sum, row) => sum + mine.rooms[row.room].messages, 0);
  if (elsewhere > 0) bar.append(h("span", { class: "elsewhere" }, `${elsewhere} in other rooms`));
  if (focused) bar.querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus();
  talk(user, mine.rooms[open[user]]);
}

/** Puts children in a place if they are others than there are, and lets what changed be seen. */
function fill(place, children) {
  const fresh = h("div", null, children);
  if (fresh.innerHTML === place.innerHTML) return;
  place.replaceChildren(...fresh.childNodes);
  place.classList.remove("changed");
  void place.getBoundingClientRect();
  place.classList.add("changed");
}

function talk(user, row) {
  const place = $(`${user}-talk`);
  if (!row) return;
  const list = messages.get(row.room) ?? [];
  const first = list.find((one) => one.position)?.position;
  const earlier = first ? first - 1 : row.head;
  const items = [];
  if (earlier) items.push(h("li", { class: "earlier" }, `${earlier} from before. unread counts messages, and keeps none.`));
  for (const one of list) {
    // Above the read position, and not the user's own: what counts.
    const isNew = one.user !== user && one.position && one.position > row.read_position;
    items.push(h("li", { class: `${one.user === user ? "own" : "theirs"}${isNew ? " new" : ""}${one.mention ? " mentions" : ""}` },
      h("span", { class: "text" }, one.text),
      h("span", { class: "of" }, one.user === user ? "you" : NAMES[one.user], isNew ? ", unread" : "")));
  }
  const same = place.childElementCount === items.length && items.every((item, i) => item.isEqualNode(place.children[i]));
  if (same) return;
  place.replaceChildren(...items);
  place.parentElement.scrollTop = place.parentElement.scrollHeight;
}

function onCounts(user) {
  return (fresh) => {
    counts[user] = fresh;
    USERS.forEach(draw);
    if (awaited?.watchers.delete(user)) {
      const took = Math.round(performance.now() - awaited.begun);
      $("took").replaceChildren(h("b", null, `${took} ms`), ` from the event to ${NAMES[user]}’s badge`);
    }
  };
}

// ------------------------------------------------------------------------------------------------------------------ the play

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function play() {
  // A button that is disabled loses the keyboard's focus.
  const button = $("play");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  const group = rooms().find((row) => row.kind === "group");
  const steps = [
    ["Bob writes to the group.", () => say("bob", "The new version is out", false)],
    ["He writes again: Alice’s badge counts both.", () => say("bob", "Release notes follow", false)],
    ["He mentions Alice: a mention counts beside the messages.", () => say("bob", "@alice can you check them?", true)],
    ["Alice reads the room: everything in it is gone from her badge.", () => read("alice")],
    ["She marks the last message as unread, to come back to it.", () => unread("alice")],
    ["She answers: who writes has read the room. Now Bob’s badge moves.", () => say("alice", "Looks good!", false)],
  ];
  if (group) {
    for (const user of USERS) open[user] = group.room;
    USERS.forEach(draw);
    for (const [caption, step] of steps) {
      $("caption").textContent = caption;
      await step();
      await pause(1700);
    }
  }
  $("caption").textContent = "That is all. Now you: write, mention, mark.";
  button.removeAttribute("aria-disabled");
}

// ----------------------------------------------------------------------------------------------------------------- beginning

async function begin() {
  try {
    await renew();
  } catch (error) {
    $("trouble").textContent = `The demo does not answer: ${error.message}`;
    $("trouble").hidden = false;
    return;
  }
  if (session.console_port) {
    $("console").href = `${location.protocol}//${location.hostname}:${session.console_port}/#/user?app=demo&id=alice`;
    $("console").hidden = false;
  }
  for (const user of USERS) {
    build(user);
    watch(user, () => token(user), onCounts(user));
  }
  $("play").addEventListener("click", play);
}

begin();
