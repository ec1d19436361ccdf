// The demo's chat.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, browser, demo, open, picture, pod, tabTo, until, VIEWS } from "./lib.mjs";

let chrome;
let served;
before(async () => {
  [chrome, served] = await Promise.all([browser(), demo()]);
});
after(async () => {
  await chrome?.close();
  await served?.stop();
});

const total = async (page, user) => {
  const badge = page.locator(`#${user}-totals .badge.total [aria-hidden]`);
  return (await badge.count()) ? Number(await badge.innerText()) : null;
};
const ready = (page) => until("both badges", async () => (await total(page, "alice")) !== null && (await total(page, "bob")) !== null);
const becomes = (page, user, n) => until(`${user} at ${n}`, async () => (await total(page, user)) === n);

test("its address is the first that the demo prints, and `serve` has no such page", async () => {
  const first = served.first.find((line) => line.trim() !== "");
  assert.match(first, new RegExp(`^ *the demo page +${served.public}/$`));
  const other = await pod();
  try {
    for (const path of ["/", "/demo/session", "/demo/chat.js"]) {
      assert.equal((await fetch(other.public + path)).status, 404, path);
    }
  } finally {
    await other.stop();
  }
});

test("the badges of a user's rooms come to the user's own", async () => {
  const { page, done } = await open(chrome, `${served.public}/`);
  await ready(page);
  for (const user of ["alice", "bob"]) {
    const number = (text) => Number(/\d+/.exec(text)?.[0] ?? 0);
    const badges = await page.locator(`#${user}-rooms .badge:not(.at) [aria-hidden]`).allInnerTexts();
    const elsewhere = await page.locator(`#${user}-rooms .elsewhere`).allInnerTexts();
    const sum = [...badges, ...elsewhere].reduce((all, text) => all + number(text), 0);
    assert.equal(sum, await total(page, user), `${user}: ${badges} ${elsewhere}`);
  }
  await done();
});

test("what one user does moves the other's badge, by keyboard alone", async () => {
  const { page, done } = await open(chrome, `${served.public}/`);
  await ready(page);
  const before = await total(page, "alice");
  await tabTo(page, "#bob-text");
  await page.keyboard.type("Hello Alice");
  await page.keyboard.press("Enter");
  await becomes(page, "alice", before + 1);
  await until("the time", async () => /\d+ ms from the event to Alice’s badge/.test(await page.locator("#took").innerText()));
  assert.match(await page.locator("#alice-talk").innerText(), /Hello Alice\s*Bob, unread/);

  // A mention of alice beside it.
  const mentions = page.locator("#alice-totals .badge.at [aria-hidden]");
  const mentioned = Number(await mentions.innerText());
  await tabTo(page, "#bob-mention");
  await page.keyboard.press("Space");
  await tabTo(page, "#bob-say button");
  await page.keyboard.press("Enter");
  await becomes(page, "alice", before + 2);
  await until("the mention", async () => Number(await mentions.innerText()) === mentioned + 1);
  // What is read aloud: one mention, two mentions.
  const aloud = await page.locator(".badge.at .unseen").allInnerTexts();
  assert.ok(aloud.length > 0);
  for (const said of aloud) assert.match(said, /^(1 mention|(?!1 )\d+ mentions)$/);

  // In their direct room alice had three from before.
  const row = await page.locator("#alice-rooms button[aria-pressed=true] .badge:last-child [aria-hidden]").innerText();
  await tabTo(page, "#alice-read");
  await page.keyboard.press("Enter");
  await becomes(page, "alice", before + 2 - Number(row));
  await tabTo(page, "#alice-unread");
  await page.keyboard.press("Enter");
  await becomes(page, "alice", before + 3 - Number(row));

  // Another room, by keyboard.
  await tabTo(page, "#alice-rooms [data-room=orders]");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#alice-rooms [data-room=orders]").getAttribute("aria-pressed"), "true");
  await done();
});

test("it can be read in every window", async () => {
  for (const view of VIEWS) {
    const { page, done } = await open(chrome, `${served.public}/`, view);
    await ready(page);
    await page.locator("#bob-text").fill("Hello");
    const before = await total(page, "alice");
    await page.locator("#bob-say button").click();
    await becomes(page, "alice", before + 1);
    await accessible(page, `chat ${JSON.stringify(view)}`);
    await done();
  }
});

test("it plays by itself", async () => {
  const { page, done } = await open(chrome, `${served.public}/`, { width: 1200, height: 900, colorScheme: "light" });
  await ready(page);
  const before = [await total(page, "alice"), await total(page, "bob")];
  // What each has unread in the room of the play. Who writes there has read it.
  const inRoom = async (user) => {
    const badge = page.locator(`#${user}-rooms [data-room=family] .badge:last-child [aria-hidden]`);
    return (await badge.count()) ? Number(await badge.innerText()) : 0;
  };
  const room = { alice: await inRoom("alice"), bob: await inRoom("bob") };
  await tabTo(page, "#play");
  await page.keyboard.press("Enter");
  const play = () => page.evaluate(() => [document.activeElement.id, document.activeElement.getAttribute("aria-disabled")]);
  await until("the play", async () => /Bob writes/.test(await page.locator("#caption").innerText()));
  assert.deepEqual(await play(), ["play", "true"]);
  // Once more while it plays does nothing.
  await page.keyboard.press("Enter");
  await until("the mention", async () => /mentions Alice/.test(await page.locator("#caption").innerText()));
  await until("its badge", async () => (await total(page, "alice")) === before[0] + 3);
  await picture(page, "demo-light", { clip: { x: 0, y: 0, width: 1200, height: 800 } });
  await until("the end", async () => /That is all/.test(await page.locator("#caption").innerText()));
  await becomes(page, "alice", before[0] - room.alice);
  await becomes(page, "bob", before[1] - room.bob + 1);
  assert.deepEqual(await play(), ["play", null]);
  await done();
});
