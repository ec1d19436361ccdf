// The console, as somebody uses it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, browser, demo, open, picture, pod, send, tabTo, unique, until, VIEWS } from "./lib.mjs";

let chrome;
let served;
before(async () => {
  [chrome, served] = await Promise.all([browser(), demo()]);
});
after(async () => {
  await chrome?.close();
  await served?.stop();
});

const text = (page, selector) => page.locator(selector).innerText();
const drawn = (page) => until("a plot", () => page.locator("#tile-connections .plot-line").count());
const sum = async (page, name) => Number((await text(page, `#sum-${name} dd >> nth=0`)).replaceAll(",", ""));

test("the overview shows what was before the page was opened, in every window", async () => {
  const first = await open(chrome, served.admin);
  const since = (page) => page.locator("#tile-connections .plot-line").getAttribute("d");
  await drawn(first.page);
  await until("a line", async () => /L/.test(await since(first.page)));
  await first.done();
  for (const view of VIEWS) {
    const { page, done } = await open(chrome, served.admin, view);
    await drawn(page);
    // Two samples at least, and so from before this page.
    assert.match(await since(page), /L/);
    assert.equal(await page.locator(".tile").count(), 8);
    assert.match(await text(page, "#state"), /serving[\s\S]*Redis up[\s\S]*data current/);
    await accessible(page, `overview ${JSON.stringify(view)}`);
    await done();
  }
});

test("events and reads are on the plots", async () => {
  const { page, done } = await open(chrome, served.admin);
  await drawn(page);
  const rates = [];
  await until("a rate of events", async () => {
    await send(served, { type: "message.sent", sender: "bob", to: "dave", id: unique() });
    rates.push(await text(page, "#tile-events .now"));
    return !/^[–0]\s/.test(rates.at(-1));
  });
  // By keyboard, back to before it.
  await tabTo(page, "#moment");
  await page.keyboard.press("ArrowLeft");
  assert.match(await text(page, "#moment-text"), /ago/);
  assert.equal(await page.locator("#tile-events .plot-moment").count(), 1);
  await page.keyboard.press("End");
  assert.equal(await text(page, "#moment-text"), "now");
  await done();
});

test("a user is found by keyboard alone, changes with an event, and is verified", async () => {
  const { page, done } = await open(chrome, served.admin);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await tabTo(page, "nav a[data-view=inspector]");
  await page.keyboard.press("Enter");
  await until("the field", () => page.evaluate(() => document.activeElement.id === "name"));
  await page.keyboard.type("alice");
  await page.keyboard.press("Enter");
  const before = await until("alice", async () => (await page.locator("#sum-messages").count()) && sum(page, "messages"));
  assert.ok(before >= 10);
  await send(served, { type: "message.sent", sender: "carol", to: "alice", id: unique(), mentions: ["alice"] });
  await until("the new count", async () => (await sum(page, "messages")) === before + 1);
  await until("a word for a screen reader", async () => /alice: \d+ unread messages/.test(await page.locator("#said").textContent()));

  await tabTo(page, "#verify");
  await page.keyboard.press("Enter");
  await until("the check", async () => /No drift/.test(await page.locator(".verdict").allInnerTexts().then(String)));

  // A row's part stays open, and the focus where it is, while the page changes.
  await tabTo(page, "tr[data-key='room orders'] button");
  await page.keyboard.press("Enter");
  const line = page.locator("tr[data-key='room orders more'] code").first();
  assert.match(await line.innerText(), /^redis-cli .*HGET '?unread:v1:\{demo:u:alice\}:rooms'? orders$/);
  await send(served, { type: "message.sent", sender: "carol", room: "orders", id: unique() });
  await until("the room's count", async () => /^4\b/.test(await text(page, "tr[data-key='room orders'] td >> nth=0")));
  assert.ok(await line.isVisible());
  assert.ok(await page.evaluate(() => document.activeElement.matches("tr[data-key='room orders'] button")));
  assert.match(await text(page, "tr[data-key='room orders']"), /sticky/);

  // From the room to its members.
  await tabTo(page, "tr[data-key='room town-hall'] a");
  await page.keyboard.press("Enter");
  await until("the room", async () => /Members: 4/.test(await text(page, "#found")));
  await done();
});

test("users and rooms can be read in every window", async () => {
  for (const [what, id, key] of [["user", "alice", "room orders"], ["room", "orders", "member bob"]]) {
    for (const view of VIEWS) {
      const { page, done } = await open(chrome, `${served.admin}/#/${what}?app=demo&id=${id}`, view);
      await until(id, () => page.locator(`tr[data-key='${key}']`).count());
      await page.locator("tr button[data-more]").first().click();
      await accessible(page, `${what} ${JSON.stringify(view)}`);
      await done();
    }
  }
});

test("rooms are found by name, and the unread ones alone", async () => {
  const { page, done } = await open(chrome, `${served.admin}/#/user?app=demo&id=alice`);
  await until("alice", () => page.locator("tr[data-key='room family']").count());
  await page.locator("#filter").fill("ORD");
  await until("one room", async () => (await page.locator("tbody tr[data-key^=room]").count()) === 1);
  await page.locator("#filter").fill("");
  await until("all rooms", () => page.locator("tr[data-key='room project-x']").count());
  await page.locator("#only-unread").check();
  assert.equal(await page.locator("tr[data-key='room project-x']").count(), 0);
  await done();
});

test("what is not there is said, and a name is never markup", async () => {
  const name = "<img src=x onerror=\"document.title='hurt'\">{odd}|,";
  await send(served, [
    { type: "room.updated", room: name, tags: [name] },
    { type: "member.joined", room: name, users: [name] },
    { type: "message.sent", room: name, sender: "bob", id: unique() },
  ].slice(0, 2));
  const { page, done } = await open(chrome, `${served.admin}/#/user?app=demo&id=nobody`);
  await until("the answer", async () => /Nothing is kept of user “nobody”/.test(await text(page, "#found")));
  await page.locator("#name").fill(name);
  await page.locator("#look-form button").click();
  await until("the user", async () => (await text(page, "#found")).includes(name));
  assert.equal(await page.locator("#found img").count(), 0);
  assert.notEqual(await page.title(), "hurt");
  await page.locator("tbody th a").first().click();
  await until("the room", async () => /Members: 1/.test(await text(page, "#found")));
  await done();
});

test("a pod that goes away is said, and a page that is hidden asks nothing", async () => {
  const short = await pod();
  const { page, asked, done } = await open(chrome, short.admin);
  await drawn(page);
  await page.evaluate(() => {
    Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  const before = asked.length;
  // Two turns of the page.
  await page.waitForTimeout(2_500);
  assert.ok(asked.length <= before + 1, `${asked.length - before} requests`);
  await short.stop();
  await page.evaluate(() => {
    delete document.visibilityState;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await until("the word", async () => /does not answer/.test(await page.locator("#trouble").textContent()));
  await done();
});

test("the admin token lets in, is in no address, and is forgotten", async () => {
  const token = "web-test-admin-token-7f3a9c";
  const guarded = await pod(`admin_token = "${token}"`);
  try {
    for (const [path, status] of [["/livez", 200], ["/readyz", 200], ["/openapi.json", 200], ["/", 200], ["/metrics", 401], ["/console/overview", 401], ["/console/user?app=web&user=a", 401]]) {
      assert.equal((await fetch(guarded.admin + path)).status, status, path);
      const headers = { Authorization: `Bearer ${token}` };
      const expected = path.startsWith("/console/user") ? 404 : 200;
      assert.equal((await fetch(guarded.admin + path, { headers })).status, expected, path);
    }
    for (const view of VIEWS) {
      const { page, asked, done } = await open(chrome, guarded.admin, view);
      await page.locator("#token").waitFor();
      await accessible(page, `login ${JSON.stringify(view)}`);
      assert.ok(await page.evaluate(() => document.activeElement.id === "token"));
      await page.keyboard.type("not the token");
      await page.keyboard.press("Enter");
      await until("the refusal", async () => /not the admin token/.test(await text(page, "#login-wrong")));
      await page.keyboard.type(token);
      await page.keyboard.press("Enter");
      await drawn(page);
      await page.reload();
      await drawn(page);
      await page.locator("#leave").click();
      await page.locator("#token").waitFor();
      assert.equal(await page.evaluate(() => sessionStorage.length), 0);
      assert.ok(asked.every((request) => !request.url().includes(token)));
      await done();
    }
    assert.ok(!guarded.log.join("\n").includes(token));
  } finally {
    await guarded.stop();
  }
});

test("a page that calls the pod by a name of its own learns nothing", async () => {
  const { port } = new URL(served.admin);
  const answer = await fetch(`${served.admin}/console/overview`);
  assert.equal(answer.status, 200);
  const { request } = await import("node:http");
  const status = await new Promise((done, failed) => {
    const options = { host: "127.0.0.1", port, path: "/console/overview", headers: { Host: `evil.example:${port}` } };
    request(options, (response) => done(response.resume().statusCode)).on("error", failed).end();
  });
  assert.equal(status, 403);
  const simple = await fetch(`${served.admin}/console/verify`, { method: "POST", body: '{"app":"demo","user":"alice"}' });
  assert.equal(simple.status, 415);
});

test("pictures for the documents", { skip: !process.env.SHOTS }, async () => {
  for (const view of [{ width: 1200, height: 720, colorScheme: "light" }, { width: 1200, height: 720, colorScheme: "dark" }]) {
    const { page, done } = await open(chrome, served.admin, view);
    await drawn(page);
    // Traffic that is worth a picture.
    const end = Date.now() + Number(process.env.SHOTS_TRAFFIC ?? 90) * 1000 * (view.colorScheme === "light" ? 1 : 0.1);
    while (Date.now() < end) {
      const wave = 6 + 5 * Math.sin(Date.now() / 9_000) + 3 * Math.random();
      await Promise.all(Array.from({ length: Math.max(1, Math.round(wave)) }, async () => {
        await send(served, { type: "message.sent", sender: "bob", to: "dave", id: unique() });
        await fetch(`${served.public}/v1/users/alice/unread`, { headers: { Authorization: `Bearer ${served.key}` } }).then((answer) => answer.text());
        await fetch(`${served.public}/v1/users/bob/unread`, { headers: { Authorization: `Bearer ${served.key}` } }).then((answer) => answer.text());
      }));
      await page.waitForTimeout(120);
    }
    await page.waitForTimeout(3_000);
    await picture(page, `console-overview-${view.colorScheme}`);
    await page.goto(`${served.admin}/#/user?app=demo&id=alice`);
    await until("alice", () => page.locator("tr[data-key='room orders']").count());
    await page.locator("#verify").click();
    await until("the check", () => page.locator(".verdict", { hasText: "drift" }).count());
    await picture(page, `console-user-${view.colorScheme}`);
    await done();
  }
});
