// Opens a report in Chromium and records what a report must not do: write to the console, fail, or request anything.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import puppeteer from 'puppeteer-core';

/** Milliseconds until a page must be ready, and until a change must be visible. */
const READY_WITHIN = 30_000;
const VISIBLE_WITHIN = 10_000;

/** The value of an environment variable that `cargo xtask browser` sets. */
function given(variable) {
  const value = process.env[variable];
  assert.ok(value, `${variable} is not set; run \`cargo xtask browser\``);
  return value;
}

/** The path of a file in the directory of pages. */
export const pathOf = (file) => join(given('PAGES'), file);

/** The value of a JSON file in the directory of pages. */
export const json = (file) => JSON.parse(readFileSync(pathOf(file), 'utf8'));

export function launch() {
  return puppeteer.launch({
    executablePath: given('CHROMIUM'),
    // Chromium's sandbox refuses to run as root, as in most containers; their /dev/shm is small.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), '--disable-dev-shm-usage'],
  });
}

/**
 * Opens a page and waits until its script says that it has finished.
 *
 * `faults` of the result holds a line for each console message, error, and request other than that of the page.
 */
export async function open(browser, file, options = {}) {
  const { scheme = 'light', width = 1280, javascript = true, bypassCsp = false } = options;
  const page = await browser.newPage();
  const url = pathToFileURL(pathOf(file)).href;
  const faults = [];
  page.on('console', (message) => faults.push(`console ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`error: ${error.stack ?? error}`));
  page.on('dialog', (dialog) => faults.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
  page.on('request', (request) => request.url() === url || faults.push(`request of ${request.url()}`));
  await page.setViewport({ width, height: width < 600 ? 844 : 900 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.setJavaScriptEnabled(javascript);
  await page.setBypassCSP(bypassCsp);
  await page.goto(url, { waitUntil: 'load' });
  if (javascript) {
    const ready = () => page.evaluate(() => document.body.dataset.ready);
    const failed = (what) => [`${file}: ${what}`, ...faults].join('\n');
    // A page that has said that something is wrong may never be ready.
    const decided = async () => faults.length > 0 || (await ready()) !== undefined;
    await until(decided, () => failed('the script did not finish'), READY_WITHIN);
    assert.equal(await ready(), 'yes', failed('the script has not finished'));
  }
  return { page, faults };
}

/** Waits until a condition holds. `what` says what is wrong if it never does. */
export async function until(condition, what, milliseconds = VISIBLE_WITHIN) {
  const deadline = Date.now() + milliseconds;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, typeof what === 'function' ? what() : what);
    await sleep(20);
  }
}

/** Fails if the page has done what a report must not do. */
export function assertQuiet({ faults }, where) {
  assert.equal(faults.join('\n'), '', `${where}: expected no console message, error or request`);
}

/** Fails if the page is wider than its window, and names the elements that are. */
export async function assertFits({ page }, where) {
  const found = await page.evaluate(() => {
    const scrolls = (element) => getComputedStyle(element).overflowX !== 'visible';
    const selector = (element) => {
      const id = element.id ? `#${element.id}` : '';
      return element.localName + id + [...element.classList].map((name) => `.${name}`).join('');
    };
    const isClipped = (element) => {
      for (let above = element.parentElement; above !== document.body; above = above.parentElement) {
        if (above === null || scrolls(above)) return above !== null;
      }
      return false;
    };
    const outside = [...document.body.querySelectorAll('*')].filter(
      (element) => element.getBoundingClientRect().right > innerWidth + 0.5 && !isClipped(element),
    );
    const list = outside.slice(0, 5).map((element) => {
      const right = Math.round(element.getBoundingClientRect().right);
      return `  ${selector(element)} ends at ${right} px`;
    });
    return { width: document.documentElement.scrollWidth, window: innerWidth, list };
  });
  const message = `${where}: ${found.width} px wide in a window of ${found.window} px`;
  assert.ok(found.width <= found.window, [message, ...found.list].join('\n'));
}
