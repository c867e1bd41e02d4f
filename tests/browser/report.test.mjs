// The HTML report in a real browser.
//
//   REPORT=/path/to/report.html node --test report.test.mjs
//
// CHROMIUM names the browser (default /usr/bin/chromium); without one the tests are skipped.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const report = process.env.REPORT;
const skip = !report
  ? "REPORT names no file"
  : !existsSync(executablePath)
    ? `no browser at ${executablePath}`
    : false;
if (skip) console.log(`skipped: ${skip}`);

let chromium;
let browser;
let home;

before(async () => {
  if (skip) return;
  ({ chromium } = await import("playwright-core"));
  home = mkdtempSync(join(tmpdir(), "report-test-"));
  browser = await chromium.launch({
    executablePath,
    env: { ...process.env, HOME: home },
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
});

after(async () => {
  await browser?.close();
  if (home) rmSync(home, { recursive: true, force: true });
});

/** Opens the report and collects what it asks for and complains about. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const requests = [];
  const complaints = [];
  const url = pathToFileURL(resolve(report)).href;
  page.on("request", request => requests.push(request.url()));
  page.on("console", message => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", error => complaints.push(String(error)));
  await page.goto(url, { waitUntil: "load" });
  return { context, page, requests, complaints, url };
}

test("asks for nothing but itself and complains about nothing", { skip }, async () => {
  const { context, page, requests, complaints, url } = await open();
  await page.waitForTimeout(200);
  assert.deepEqual(requests, [url]);
  assert.deepEqual(complaints, []);
  await context.close();
});

test("every drawing has a size", { skip }, async () => {
  const { context, page } = await open();
  await page.evaluate(() => document.querySelectorAll("details").forEach(d => { d.open = true; }));
  const sizes = await page.locator("svg").evaluateAll(all =>
    all.map(svg => { const box = svg.getBoundingClientRect(); return [box.width, box.height]; }));
  assert.ok(sizes.length > 0, "there are drawings");
  for (const [width, height] of sizes) assert.ok(width > 0 && height > 0, `${width} x ${height}`);
  await context.close();
});

test("tables sort by column, both ways, within their groups", { skip }, async () => {
  const { context, page } = await open();
  const keys = () => page.locator("table.sortable").first().evaluate(table =>
    [...table.tBodies].map(body => [...body.rows]
      .filter(row => !row.classList.contains("group"))
      .map(row => row.cells[1].dataset.v ?? null)));
  // Cells without a number stand last, either way.
  const ordered = (body, by) => {
    const numbers = body.filter(v => v !== null).map(Number).sort(by);
    return [...numbers, ...body.filter(v => v === null)];
  };
  const read = body => body.map(v => v === null ? null : Number(v));
  const before = await keys();
  const head = page.locator("table.sortable").first().locator("thead th").nth(1);
  await page.evaluate(() => document.querySelectorAll("details").forEach(d => { d.open = true; }));
  await head.locator("button").click();
  assert.equal(await head.getAttribute("aria-sort"), "descending");
  const down = await keys();
  for (const body of down) assert.deepEqual(read(body), ordered(body, (a, b) => b - a));
  await head.locator("button").click();
  assert.equal(await head.getAttribute("aria-sort"), "ascending");
  for (const body of await keys()) assert.deepEqual(read(body), ordered(body, (a, b) => a - b));
  const sorted = all => all.map(body => ordered(body, (a, b) => a - b));
  assert.deepEqual(sorted(down), sorted(before), "no row is lost or changes its group");
  await context.close();
});

test("reads without JavaScript", { skip }, async () => {
  const { context, page, requests, url } = await open({ javaScriptEnabled: false });
  assert.ok(await page.locator("#verdict").isVisible());
  assert.ok((await page.locator("#verdict").innerText()).length > 20);
  assert.ok(await page.locator("table.sortable").first().isVisible());
  assert.ok(await page.locator("figure svg").first().isVisible());
  assert.equal(await page.locator("th button").count(), 0, "no dead controls");
  assert.deepEqual(requests, [url]);
  await context.close();
});

for (const [width, colorScheme] of [[1280, "light"], [1280, "dark"], [420, "light"]]) {
  test(`fits ${width} pixels (${colorScheme})`, { skip }, async () => {
    const { context, page } = await open({ viewport: { width, height: 900 }, colorScheme });
    const [inner, full] = await page.evaluate(() =>
      [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
    assert.ok(full <= inner, `${full} wide in ${inner}`);
    await context.close();
  });
}

test("tables are labelled and headings are in order", { skip }, async () => {
  const { context, page } = await open();
  const bare = await page.locator("table").evaluateAll(all =>
    all.filter(t => !t.caption?.textContent || !t.querySelector("th[scope=col]")).length);
  assert.equal(bare, 0);
  assert.equal(await page.locator("h1").count(), 1);
  const levels = await page.locator("h1,h2,h3").evaluateAll(all => all.map(h => Number(h.tagName[1])));
  // A heading may go down one level at a time; a part without a visible h2 counts as one.
  assert.ok(levels.every((level, i) => i === 0 || level <= Math.max(levels[i - 1] + 1, 3)));
  await context.close();
});

test("the other rows of a comparison are shown on request, without JavaScript too", { skip }, async () => {
  const { context, page } = await open({ javaScriptEnabled: false });
  const every = page.locator("#every");
  if (await every.count()) {
    const hidden = page.locator("#comparison tr.more").first();
    assert.equal(await hidden.isVisible(), false);
    await every.check();
    assert.ok(await hidden.isVisible());
  }
  await context.close();
});

test("the embedded result is the JSON contract", { skip }, async () => {
  const { context, page } = await open();
  const result = JSON.parse(await page.locator("#result").textContent());
  assert.match(result.schema, /^mmusim\.(run|compare)\/1$/);
  await context.close();
});
