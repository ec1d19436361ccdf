// What the tests of the pages share: pods, a browser, and what has to hold on every page.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, readFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { writeFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");
const BINARY = process.env.UNREAD ?? resolve(import.meta.dirname, "../../target/debug/unread");
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Where pictures go; none are taken without it. */
const SHOTS = process.env.SHOTS;
export const PATIENCE = 60_000;

/** Waits until `look` answers something. */
export async function until(what, look) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** A running command; `stop` ends it and waits for that. */
async function run(args, cwd, environment = {}) {
  const child = spawn(BINARY, args, { cwd, env: { ...process.env, TMPDIR: cwd, ...environment }, stdio: ["ignore", "pipe", "pipe"] });
  const said = { out: [], log: [] };
  createInterface({ input: child.stdout }).on("line", (line) => said.out.push(line));
  createInterface({ input: child.stderr }).on("line", (line) => said.log.push(line));
  const gone = new Promise((done) => child.on("exit", done));
  const stop = async () => {
    child.kill("SIGINT");
    await gone;
    await rm(cwd, { recursive: true, force: true });
  };
  return { said, stop, child };
}

const ADDRESSES = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/** `unread demo` on free ports. */
export async function demo() {
  const cwd = await mkdtemp(join(tmpdir(), "unread-web-"));
  const { said, stop } = await run(["demo", ...ADDRESSES], cwd);
  await until("the demo's calls", () => said.out.some((line) => line.includes("/v1/events")));
  const found = (what) => said.out.find((line) => line.includes(what))?.match(/http:\/\/\S+?(?=\/?(\s|$))/)?.[0];
  return { public: found("the demo page"), admin: found("the console"), first: said.out, key: "demo-server-key", stop };
}

/** `unread serve` with an app, an admin token, and a Redis of its own. */
export async function pod(settings = "") {
  const cwd = await mkdtemp(join(tmpdir(), "unread-web-"));
  const file = join(cwd, "unread.toml");
  const key = "web-test-server-key-1";
  await writeFile(file, `[server]\n${settings}\n[[apps]]\nid = "web"\nserver_keys = ["${key}"]\n`);
  const environment = { UNREAD_LOG__FORMAT: "json", UNREAD_SERVER__DRAIN_SECONDS: "0" };
  const { said, stop } = await run(["serve", "--config", file, ...ADDRESSES], cwd, environment);
  const line = await until("the pod", () => said.log.map((one) => JSON.parse(one)).find((one) => one.message === "listening"));
  return { public: `http://${line.listen}`, admin: `http://${line.admin_listen}`, key, log: said.log, stop };
}

/** Sends events as a back end does. */
export async function send(to, events) {
  const answer = await fetch(`${to.public}/v1/events`, {
    method: "POST",
    headers: { Authorization: `Bearer ${to.key}`, "Content-Type": "application/json" },
    body: JSON.stringify(events),
  });
  const body = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(body));
  assert.equal(body.rejected, 0, JSON.stringify(body));
}

let number = 0;
export const unique = () => `web-${process.pid}-${(number += 1)}`;

/** One browser for a file of tests. */
export async function browser() {
  const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: BROWSER, headless: true, args: flags });
}

export const VIEWS = [
  { width: 1440, height: 900, colorScheme: "light" },
  { width: 1440, height: 900, colorScheme: "dark" },
  { width: 360, height: 740, colorScheme: "light" },
  { width: 360, height: 740, colorScheme: "dark" },
];

/** Opens a page of its own. At the end of a test `done` has to be called: it checks what has to hold of every page. */
export async function open(chrome, address, { width, height, colorScheme } = VIEWS[0]) {
  const context = await chrome.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const origin = new URL(address).origin;
  const faults = [];
  const asked = [];
  page.on("request", (request) => {
    asked.push(request);
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== origin) faults.push(`a request left the origin: ${url}`);
  });
  page.on("pageerror", (error) => faults.push(`an error: ${error}`));
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) faults.push(message.text());
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(address);
  const done = async () => {
    const violations = await page.evaluate(() => globalThis.violations);
    assert.deepEqual([...faults, ...violations], []);
    await context.close();
  };
  return { page, asked, done, context };
}

/** Fails if `axe` finds something serious, or if the page is wider than the window. */
export async function accessible(page, where) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run(document));
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("\n  ")}`);
  assert.deepEqual(told, [], where);
  const [wide, window] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window, `${where}: ${wide} pixels wide in a window of ${window}`);
}

/** Presses Tab until an element has the focus. */
export async function tabTo(page, selector) {
  for (let n = 0; n < 120; n += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
  }
  assert.fail(`${selector} is not reached by Tab`);
}

/** Takes a picture for the documents, if they are wanted. */
export async function picture(page, name, options = {}) {
  if (!SHOTS) return;
  await mkdir(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), animations: "disabled", ...options });
}
