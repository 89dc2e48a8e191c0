// What every report must be, in light and dark, on a desk and on a phone: silent, without requests, no wider than its
// window, accessible, printable, and a complete copy of its data.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import axe from 'axe-core';
import { assertFits, assertQuiet, json, launch, open } from './watched-page.mjs';

/** Each page, what its script must find, and the JSON that it holds. */
const PAGES = [
  {
    name: 'audit',
    file: 'audit/physarium.audit.html',
    has: ['#projections', '#tensors', '#tile-map', '#magnified-tile', '#claims', '#heat-sparsity', 'svg.chart'],
    holds: () => json('audit/physarium.audit.json'),
  },
  {
    name: 'compare',
    file: 'compare/compare.html',
    has: ['#runs', 'svg.chart'],
    holds: () => json('compare/physarium.compare.json'),
  },
  {
    name: 'overview',
    file: 'overview.html',
    has: ['#side-by-side'],
    holds: () => [json('audit/physarium.audit.json'), json('compare/physarium.compare.json')],
  },
  {
    name: 'hostile',
    file: 'hostile.html',
    has: ['#projections', '#tensors', '#claims'],
    holds: () => json('hostile/physarium.audit.json'),
  },
  {
    name: 'large',
    file: 'large.html',
    has: ['#projections', '#tensors', '#heat-sparsity'],
    holds: () => json('large/physarium.audit.json'),
  },
];
const SCHEMES = ['light', 'dark'];
const WIDTHS = [1280, 390];
/** Width of an A4 page in CSS pixels. */
const PAPER = 794;

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

for (const { name, file, has, holds } of PAGES) {
  describe(`${name} page`, () => {
    for (const scheme of SCHEMES) {
      for (const width of WIDTHS) {
        const where = `${name}, ${scheme}, ${width} px`;

        it(`${where}: silent and not too wide`, async () => {
          const opened = await open(browser, file, { scheme, width });
          await assertFits(opened, where);
          await save(opened.page, `${name}-${scheme}-${width}`);
          assertQuiet(opened, where);
          await opened.page.close();
        });

        it(`${where}: accessible`, async (t) => {
          const { page } = await open(browser, file, { scheme, width, bypassCsp: true });
          await page.evaluate(axe.source);
          const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ['violations'] }));
          const isGrave = ({ impact }) => ['serious', 'critical'].includes(impact);
          violations.filter((found) => !isGrave(found)).forEach((found) => t.diagnostic(`${where}: ${described(found)}`));
          const grave = violations.filter(isGrave).map(described);
          assert.equal(grave.length, 0, [`${where}: violations of accessibility`, ...grave].join('\n'));
          await page.close();
        });
      }
    }

    it(`${name}: structure`, async () => {
      const { page } = await open(browser, file);
      const missing = [];
      for (const selector of has) {
        if ((await page.$(selector)) === null) missing.push(selector);
      }
      assert.deepEqual(missing, [], `${name}: no such elements`);
      assert.equal(await page.$eval('html', (html) => html.lang), 'en', `${name}: lang`);
      const policy = 'meta[http-equiv="Content-Security-Policy" i]';
      assert.ok(await page.$(policy), `${name}: no ${policy}`);
      const charts = await page.$$eval('svg.chart', (all) => all.map((svg) => ({
        role: svg.getAttribute('role'),
        label: svg.getAttribute('aria-label') ?? svg.querySelector(':scope > title')?.textContent ?? '',
      })));
      for (const { role, label } of charts) {
        assert.equal(role, 'img', `${name}: role of the chart "${label}"`);
        assert.notEqual(label.trim(), '', `${name}: a chart has neither aria-label nor title`);
      }
      await page.close();
    });

    it(`${name}: holds its data`, async () => {
      const { page } = await open(browser, file);
      const held = await page.$eval('script#data[type="application/gzip"]', (script) => script.textContent);
      const text = gunzipSync(Buffer.from(held, 'base64')).toString('utf8');
      assert.deepEqual(JSON.parse(text), holds());
      await page.close();
    });

    it(`${name}: printable`, async () => {
      const opened = await open(browser, file, { width: PAPER });
      await opened.page.emulateMediaType('print');
      await assertFits(opened, `${name}, print, ${PAPER} px`);
      const pdf = await opened.page.pdf({ format: 'A4' });
      assert.equal(Buffer.from(pdf.subarray(0, 5)).toString(), '%PDF-');
      assertQuiet(opened, `${name}, print`);
      await opened.page.close();
    });
  });
}

/** Saves a picture of the whole page into the directory `SCREENSHOTS`, if there is one. */
async function save(page, name) {
  const directory = process.env.SCREENSHOTS;
  if (!directory) return;
  mkdirSync(directory, { recursive: true });
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
}

/** A violation found by axe: what is wrong, and the first elements where it is. */
function described({ id, impact, help, nodes }) {
  const places = nodes.slice(0, 5).map(({ target, failureSummary }) => {
    const summary = failureSummary.split('\n').slice(1).map((line) => line.trim()).join('; ');
    return `    ${target.join(' ')}: ${summary}`;
  });
  const more = nodes.length > 5 ? [`    and ${nodes.length - 5} more`] : [];
  return [`  ${id} (${impact}): ${help}`, ...places, ...more].join('\n');
}
