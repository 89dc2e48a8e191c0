// A report of a checkpoint whose names attack the reader: names are text, never markup, and nothing invisible is left
// in them.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { readTable, sortButton } from './tables.mjs';
import { assertFits, assertQuiet, json, launch, open, until } from './watched-page.mjs';

const HOSTILE = 'hostile.html';
/** Characters that change the direction of text and other invisible ones, as in `escape.rs` of physarium-checkpoint. */
const INVISIBLE = '[\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

describe('hostile page', () => {
  const audit = json('hostile/physarium.audit.json');
  const names = audit.tensors.map(({ name }) => name);

  it('no name becomes markup or script', async () => {
    const { page } = await open(browser, HOSTILE);
    await assertHarmless(page);
    const plain = await open(browser, 'audit/physarium.audit.html');
    const scripts = (page) => page.$$eval('script', (all) => all.map(({ id, type, src }) => `${id} ${type} ${src}`));
    assert.deepEqual(await scripts(page), await scripts(plain.page), 'scripts of the page');
    const text = await page.$eval('table#tensors', ({ innerText }) => innerText);
    for (const name of names.filter((name) => name.includes('hacked'))) {
      assert.ok(text.includes(name), `#tensors does not show ${name}`);
    }
    await plain.page.close();
    await page.close();
  });

  it('no name does harm when rows are sorted, filtered and chosen', async () => {
    for (const width of [1280, 390]) {
      const opened = await open(browser, HOSTILE, { width });
      const { page } = opened;
      const { headers } = await readTable(page, 'tensors');
      for (const column of headers.keys()) {
        const button = await page.$(sortButton('tensors', column));
        await button?.click();
      }
      for (const selector of ['select#map-tensor', 'select#magnified', 'select#filter-projection']) {
        const options = await page.$$eval(`${selector} option`, (all) => all.map(({ value }) => value));
        for (const option of options) {
          await page.select(selector, option);
          await assertFits(opened, `hostile, ${width} px, ${selector} ${option.slice(0, 80)}`);
        }
        if (options.length > 0) await page.select(selector, options[0]);
      }
      await page.focus('canvas#tile-map');
      await page.keyboard.press('ArrowRight');
      const name = names.find((name) => name.includes('<img'));
      await page.type('input#filter', name);
      await until(async () => (await readTable(page, 'tensors')).rows.length === 1, `${name} is not found by its name`);
      await assertHarmless(page);
      await assertFits(opened, `hostile, ${width} px`);
      assertQuiet(opened, `hostile, ${width} px`);
      await page.close();
    }
  });

  it('invisible characters are shown escaped', async () => {
    const { page } = await open(browser, HOSTILE);
    const found = await page.evaluate((pattern) => {
      const invisible = new RegExp(pattern);
      const texts = [['title', document.title]];
      const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const { parentElement, data } = walker.currentNode;
        if (parentElement.localName !== 'script') texts.push([parentElement.localName, data]);
      }
      for (const attribute of ['title', 'aria-label', 'alt', 'placeholder', 'label']) {
        for (const element of document.querySelectorAll(`[${attribute}]`)) {
          texts.push([`${element.localName}[${attribute}]`, element.getAttribute(attribute)]);
        }
      }
      const escaped = (text) => text.replace(/[^ -~]/gu, (char) => `U+${char.codePointAt(0).toString(16)}`).slice(0, 200);
      return texts.filter(([, text]) => invisible.test(text)).map(([where, text]) => `${where}: ${escaped(text)}`);
    }, INVISIBLE);
    assert.deepEqual(found, [], 'texts with invisible characters');
    const text = await page.$eval('table#tensors', ({ innerText }) => innerText);
    assert.ok(text.includes('\\u{202e}'), '#tensors does not show the override as \\u{202e}');
    await page.close();
  });
});

/** Fails if a name has become an element or a program. */
async function assertHarmless(page) {
  assert.equal(await page.evaluate(() => typeof globalThis.hacked), 'undefined', 'a name was run as a program');
  const elements = 'img, iframe, object, embed, marquee';
  assert.equal((await page.$$(elements)).length, 0, `a name has become one of ${elements}`);
}
