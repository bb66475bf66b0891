// Drives Chromium through the dashboard. Reads a plan as JSON from standard input, and writes what it found as JSON to standard output.
// tests/dashboard/browser.rs writes the plan and judges the result.
"use strict";

const fs = require("node:fs");
const puppeteer = require("puppeteer-core");

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A page that reports scripts of the mail: `pwned` exists in every document, and each call of it is counted.
async function open(browser, options = {}) {
  const page = await browser.newPage();
  await page.setViewport(options.viewport ?? DESKTOP);
  const seen = { pwned: 0, errors: [] };
  page.on("console", (message) => {
    if (message.text().includes("PWNED")) seen.pwned += 1;
  });
  page.on("dialog", (dialog) => {
    seen.pwned += 1;
    dialog.dismiss();
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  await page.evaluateOnNewDocument("globalThis.pwned = () => console.log('PWNED');");
  if (options.script === false) await page.setJavaScriptEnabled(false);
  return { page, seen };
}

// Opens a URL, and waits until the page has loaded and the network is idle.
async function visit(page, url) {
  await page.goto(url, { waitUntil: "load", timeout: 30000 }).catch(() => {});
  await page.waitForNetworkIdle({ idleTime: 100, timeout: 1500 }).catch(() => {});
}

async function visitAll(browser, plan, urls, act) {
  const found = [];
  const count = async () => Number(await (await fetch(plan.count)).text());
  for (const url of urls) {
    const before = await count();
    const { page, seen } = await open(browser);
    await visit(page, url);
    if (act) await act(page);
    const frames = page.frames().length;
    const connections = (await count()) - before;
    found.push({ url, connections, pwned: seen.pwned, errors: seen.errors, at: page.url(), frames });
    await page.close();
  }
  return found;
}

// Clicks the first link in the frame of a mail.
async function clickInFrame(page) {
  const frame = await page.$("iframe.mail");
  if (frame === null) return;
  await frame.scrollIntoView();
  const box = await frame.boundingBox();
  await page.mouse.click(box.x + 25, box.y + 20);
  await sleep(400);
}

async function accessibility(browser, urls) {
  const found = [];
  for (const theme of ["light", "dark"]) {
    for (const viewport of [DESKTOP, PHONE]) {
      const { page } = await open(browser, { viewport });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
      for (const url of urls) {
        await page.goto(url, { waitUntil: "load" });
        await page.evaluate(AXE);
        const result = await page.evaluate(
          (rules) => globalThis.axe.run(document, { iframes: false, runOnly: { type: "tag", values: rules } }),
          RULES,
        );
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        const violations = result.violations.map((v) => ({ id: v.id, nodes: v.nodes.map((n) => n.html).slice(0, 3) }));
        found.push({ url, theme, width: viewport.width, passes: result.passes.length, violations, overflow });
      }
      await page.close();
    }
  }
  return found;
}

// Finds a delivery with the search field, and cancels it, without JavaScript.
async function cancel(browser, base, id) {
  const { page } = await open(browser, { script: false });
  await page.goto(base, { waitUntil: "load" });
  await page.type("#q", id);
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  const detail = page.url();
  await Promise.all([page.waitForNavigation(), page.click("a[href*='/cancel']")]);
  const [response] = await Promise.all([page.waitForNavigation(), page.click("form[method=post] button")]);
  const text = await page.$eval("main", (main) => main.textContent);
  await page.close();
  return { detail, status: response.status(), text };
}

// What a page of another site can do.
async function attack(browser, plan) {
  const { page } = await open(browser);
  // The browser has a token of the dashboard.
  await page.goto(`${plan.base}/deliveries/${plan.victim}/cancel`, { waitUntil: "load" });
  const [response] = await Promise.all([
    page.waitForNavigation({ timeout: 15000 }),
    page.goto(`${plan.evil}/forge`, { waitUntil: "load" }).catch(() => {}),
  ]);
  await page.waitForFunction(() => location.pathname.includes("/cancel"), { timeout: 15000 }).catch(() => {});
  const forged = { at: page.url(), text: await page.evaluate(() => document.body.innerText), status: response?.status() };
  await page.goto(`${plan.evil}/embed`, { waitUntil: "load" }).catch(() => {});
  await sleep(500);
  const embedded = page.frames().slice(1).map((frame) => frame.url());
  await page.close();
  return { forged, embedded };
}

// Whether a page shows new mail, and does not while it is hidden, has a selection or is stopped.
async function live(browser, plan) {
  const { page, seen } = await open(browser);
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const poke = async () => (await fetch(plan.poke, { method: "POST" })).text();
  const has = (id) => page.evaluate((id) => document.querySelector(`a[href*="${id}"]`) !== null, id);
  const wait = (id) => page.waitForFunction((id) => document.querySelector(`a[href*="${id}"]`) !== null, { timeout: 15000 }, id).then(() => true, () => false);
  const hide = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await page.goto(`${plan.base}/deliveries`, { waitUntil: "load" });
  const result = {};
  result.shown = await wait(await poke());

  await hide(true);
  await sleep(500);
  const before = requests.length;
  const hidden = await poke();
  await sleep(1500);
  result.requestsWhileHidden = requests.length - before;
  result.shownWhileHidden = await has(hidden);
  await hide(false);
  result.shownAfterHidden = await wait(hidden);

  await page.evaluate(() => getSelection().selectAllChildren(document.querySelector("#list tbody")));
  const selected = await poke();
  await sleep(1500);
  result.shownWhileSelected = await has(selected);
  await page.evaluate(() => getSelection().removeAllRanges());
  result.shownAfterSelected = await wait(selected);

  await page.click("button.refresh");
  await sleep(500);
  const stopped = await poke();
  await sleep(1500);
  result.shownWhileStopped = await has(stopped);
  await page.click("button.refresh");
  result.shownAfterStopped = await wait(stopped);
  result.errors = seen.errors;
  await page.close();
  return result;
}

// A bulk change: one part without JavaScript, then with it, stopped and taken up again.
async function bulk(browser, url) {
  const { page, seen } = await open(browser, { script: false });
  const text = () => page.$eval("main", (main) => main.textContent);
  await page.goto(url, { waitUntil: "load" });
  await page.type("#note", "a note");
  await Promise.all([page.waitForNavigation(), page.click("form[method=post] button")]);
  const result = { withoutScript: await text() };

  // With JavaScript, the first request of the script waits here until “Stop” is pressed.
  await page.setJavaScriptEnabled(true);
  await page.setRequestInterception(true);
  let isHeld = true;
  let held = null;
  let posts = 0;
  page.on("request", (request) => {
    if (request.method() === "POST") posts += 1;
    if (isHeld && request.resourceType() === "xhr") held = request;
    else request.continue();
  });
  await Promise.all([page.waitForNavigation(), page.click("form[method=post] button")]);
  await page.waitForSelector("button.stop", { timeout: 15000 });
  while (held === null) await sleep(20);
  await page.evaluate(AXE);
  const axe = await page.evaluate((rules) => globalThis.axe.run(document, { runOnly: { type: "tag", values: rules } }), RULES);
  result.violations = axe.violations.map((v) => ({ id: v.id, nodes: v.nodes.map((n) => n.html).slice(0, 3) }));
  await page.click("button.stop");
  isHeld = false;
  held.continue();
  await page.waitForFunction(() => document.querySelector("button.stop") === null, { timeout: 60000 });
  const before = posts;
  await sleep(1000);
  result.requestsWhileStopped = posts - before;
  result.stopped = await text();
  if (await page.$("form[method=post] button")) {
    await page.click("form[method=post] button");
    await page.waitForFunction(() => document.querySelector("main").textContent.includes("Done: "), { timeout: 60000 });
  }
  result.over = await text();
  result.posts = posts;
  result.errors = seen.errors;
  await page.close();
  return result;
}

async function keyboard(browser, base) {
  const { page } = await open(browser);
  await page.goto(`${base}/overview`, { waitUntil: "load" });
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement.textContent);
  const isVisible = await page.evaluate(() => document.activeElement.getBoundingClientRect().left >= 0);
  await page.keyboard.press("Enter");
  const skipped = await page.evaluate(() => document.activeElement.id);
  let withoutOutline = 0;
  for (let i = 0; i < 20; i += 1) {
    await page.keyboard.press("Tab");
    const visible = await page.evaluate(() => {
      const element = document.activeElement;
      return element === document.body || getComputedStyle(element).outlineStyle !== "none";
    });
    if (!visible) withoutOutline += 1;
  }
  await page.close();
  return { first, isVisible, skipped, withoutOutline };
}

async function screenshots(browser, plan) {
  for (const { name, url, theme, phone } of plan.pictures) {
    const { page } = await open(browser, { viewport: phone ? PHONE : DESKTOP });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
    await visit(page, url);
    await page.screenshot({ path: `${plan.directory}/${name}.png`, fullPage: false });
    await page.close();
  }
}

async function main() {
  const plan = JSON.parse(fs.readFileSync(0, "utf8"));
  const browser = await puppeteer.launch({
    executablePath: plan.executable,
    headless: true,
    args: [
      // Chromium's own sandbox refuses the user root, which containers often have.
      ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
      "--disable-background-networking",
      "--no-first-run",
      "--host-resolver-rules=MAP *.example 127.0.0.1",
    ],
  });
  try {
    const result = { version: await browser.version() };
    if (plan.control) result.control = await visitAll(browser, plan, plan.control);
    if (plan.messages) result.messages = await visitAll(browser, plan, plan.messages);
    if (plan.clicks) result.clicks = await visitAll(browser, plan, plan.clicks, clickInFrame);
    if (plan.pages) result.pages = await visitAll(browser, plan, plan.pages);
    if (plan.accessibility) result.accessibility = await accessibility(browser, plan.accessibility);
    if (plan.cancel) {
      result.cancel = [];
      for (const { base, id } of plan.cancel) result.cancel.push(await cancel(browser, base, id));
    }
    if (plan.victim) result.attack = await attack(browser, plan);
    if (plan.poke) result.live = await live(browser, plan);
    if (plan.bulk) result.bulk = await bulk(browser, plan.bulk);
    if (plan.keyboard) result.keyboard = await keyboard(browser, plan.base);
    if (plan.pictures) await screenshots(browser, plan);
    process.stdout.write(JSON.stringify(result));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
