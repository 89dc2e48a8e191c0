// The audit report: its numbers are those of physarium.audit.json, and its controls do what they say, by mouse and by
// keyboard. Sorting, filtering and turning pages of many tensors is tested on the large page.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { assertOrdered, columnOf, namesOf, readTable, sortBy, valuesOf } from './tables.mjs';
import { assertQuiet, json, launch, open, pathOf, until } from './watched-page.mjs';

/** Most bytes of the large page. */
const LARGEST = 5_000_000;
/** Most rows of `#tensors` at once. */
const ROWS = 100;
/** Counts in the JSON, and the columns that show them. */
const COLUMNS = { elements: 'weights', zero: 'zero', pruned: 'pruned' };
/** Most presses of Tab that may be needed to reach a control. */
const TABS = 500;

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

let opened;
let page;
async function show(file, options) {
  opened = await open(browser, file, options);
  page = opened.page;
}
afterEach(async () => {
  const last = opened;
  opened = undefined;
  if (last === undefined) return;
  await last.page.close();
  assertQuiet(last, 'until the end of the test');
});

describe('audit page', () => {
  const AUDIT = 'audit/physarium.audit.html';
  const audit = json('audit/physarium.audit.json');

  for (const javascript of [true, false]) {
    it(`verdict and projections ${javascript ? 'with' : 'without'} JavaScript`, async () => {
      await show(AUDIT, { javascript });
      await assertStaticNumbers(audit);
    });
  }

  it('rows of #tensors are those of the JSON', async () => {
    await show(AUDIT);
    assertRows(await readTable(page, 'tensors'), audit.tensors);
    assert.equal(await shown(), `1–${audit.tensors.length} of ${audit.tensors.length} tensors`);
  });

  for (const id of ['tensors', 'projections']) {
    it(`#${id} is sorted by mouse`, async () => {
      await show(AUDIT);
      await assertSorts(id, (button) => page.click(button));
    });

    it(`#${id} is sorted by keyboard`, async () => {
      await show(AUDIT);
      await assertSorts(id, async (button) => {
        await tabTo(button);
        await page.keyboard.press('Enter');
      });
    });
  }

  it('filter by name', async () => {
    await show(AUDIT);
    await assertFilters('q_proj', audit.tensors.filter(({ name }) => name.includes('q_proj')));
    await page.$eval('input#filter', (input) => input.select());
    await page.type('input#filter', 'no tensor has this name');
    await until(async () => (await readTable(page, 'tensors')).rows.length === 0, '#tensors has rows that do not match');
  });

  it('filter by projection', async () => {
    await show(AUDIT);
    const { role } = audit.tensors[0];
    const option = await page.$$eval('select#filter-projection option', (options, role) => {
      return options.find(({ textContent }) => textContent.includes(role))?.value;
    }, role);
    assert.notEqual(option, undefined, `select#filter-projection has no option ${role}`);
    await page.select('select#filter-projection', option);
    const expected = audit.tensors.filter((tensor) => tensor.role === role);
    await until(async () => (await readTable(page, 'tensors')).rows.length === expected.length, `not only ${role}`);
    assertRows(await readTable(page, 'tensors'), expected);
  });

  it('tile map: read by arrow keys', async () => {
    await show(AUDIT);
    await choose('select#map-tensor', widest(audit).name);
    await tabTo('canvas#tile-map');
    const first = await tileAfter('ArrowLeft');
    const second = await tileAfter('ArrowRight');
    assert.notEqual(second, first, '#tile-value is the same after ArrowRight');
    assert.equal(await tileAfter('ArrowLeft'), first, '#tile-value after ArrowLeft');
    assert.ok((await colors('canvas#tile-map')) > 1, 'canvas#tile-map does not mark the tile');
  });

  it('tile map: read by mouse', async () => {
    await show(AUDIT);
    const before = await tileValue();
    await page.hover('canvas#tile-map');
    assert.notEqual(await tileValue(), before, '#tile-value is the same after pointing at a tile');
  });

  it('magnified tile: drawn for every choice', async () => {
    await show(AUDIT);
    const options = await page.$$eval('select#magnified option', (all) => all.map(({ value }) => value));
    assert.ok(options.length > 0, 'select#magnified is empty');
    for (const option of options) {
      await page.select('select#magnified', option);
      await until(async () => (await colors('canvas#magnified-tile')) > 1, `canvas#magnified-tile is blank: ${option}`);
    }
  });

  it('claims, and sparsity by layer and projection', async () => {
    await show(AUDIT);
    const claims = await page.$eval('table#claims', ({ innerText }) => innerText);
    for (const { sentence } of audit.claims) {
      assert.ok(claims.includes(sentence), `#claims does not have "${sentence}"`);
    }
    const layers = new Set(audit.tensors.map(({ layer }) => layer)).size;
    const cells = await page.$$eval('table#heat-sparsity td', (all) => all.length);
    const expected = layers * audit.projections.length;
    assert.ok(cells >= expected, `#heat-sparsity has ${cells} cells, expected ${expected}`);
  });
});

describe('large page', () => {
  const LARGE = 'large.html';
  const audit = json('large/physarium.audit.json');
  const grouped = (number) => number.toLocaleString('en-US');
  const all = grouped(audit.tensors.length);

  it('small and quick', async (t) => {
    const bytes = statSync(pathOf(LARGE)).size;
    const begin = performance.now();
    await show(LARGE);
    const milliseconds = Math.round(performance.now() - begin);
    t.diagnostic(`${all} tensors: ${grouped(bytes)} bytes, ready after ${milliseconds} ms`);
    assert.ok(bytes < LARGEST, `${grouped(bytes)} bytes, expected less than ${grouped(LARGEST)}`);
    await assertStaticNumbers(audit);
  });

  it('pages of rows', async () => {
    await show(LARGE);
    assert.equal(await shown(), `1–${ROWS} of ${all} tensors`);
    assertRows(await readTable(page, 'tensors'), audit.tensors.slice(0, ROWS));
    assert.ok(await isDisabled('previous'), 'button#previous on the first page');
    await turn('next', `101–200 of ${all} tensors`);
    assertRows(await readTable(page, 'tensors'), audit.tensors.slice(ROWS, 2 * ROWS));
    await turn('previous', `1–${ROWS} of ${all} tensors`);

    const last = audit.tensors.filter(({ name }) => name.includes('layers.93.'));
    await page.type('input#filter', 'layers.93.');
    const of = `of ${last.length} tensors`;
    await until(async () => (await shown()).includes(of), `#shown does not say "${of}"`);
    for (let begin = ROWS; begin < last.length; begin += ROWS) {
      await turn('next', `${begin + 1}–${Math.min(begin + ROWS, last.length)} ${of}`);
    }
    assertRows(await readTable(page, 'tensors'), last.slice(Math.floor(last.length / ROWS) * ROWS));
    assert.ok(await isDisabled('next'), 'button#next on the last page');
  });

  it('all rows are sorted, not only those of the page', async () => {
    await show(LARGE);
    const column = columnOf(await readTable(page, 'tensors'), 'pruned');
    const ascending = audit.tensors.map(({ pruned }) => pruned).sort((a, b) => a - b);
    for (let round = 0; round < 2; round += 1) {
      const { table, direction } = await sortBy(page, 'tensors', column, (button) => page.click(button));
      const expected = direction === 'ascending' ? ascending : [...ascending].reverse();
      assert.deepEqual(valuesOf(table, column), expected.slice(0, ROWS), `#tensors by pruned, ${direction}`);
    }
  });

  it('tile map: drawn in several colors', async () => {
    await show(LARGE);
    assert.ok((await colors('canvas#tile-map')) > 1, 'canvas#tile-map is blank');
  });

  it('filter by name', async () => {
    await show(LARGE);
    const name = 'layers.47.mlp.experts.100.';
    await assertFilters(name, audit.tensors.filter((tensor) => tensor.name.includes(name)));
  });
});

/** The numbers that are in the page without its script. */
async function assertStaticNumbers(audit) {
  const counts = { model: audit.model, target: audit.target, pruned: audit.pruned, untouched: audit.untouched };
  for (const [name, { elements }] of Object.entries(counts)) {
    const { value, text } = await page.$eval(`data#count-${name}`, ({ value, textContent }) => ({ value, text: textContent }));
    assert.equal(value, String(elements), `value of #count-${name}`);
    assert.equal(text.trim(), elements.toLocaleString('en-US'), `text of #count-${name}`);
  }
  const table = await readTable(page, 'projections');
  const [elements, pruned] = [COLUMNS.elements, COLUMNS.pruned].map((word) => columnOf(table, word));
  const rows = table.rows.map((row) => [row[0].text, row[elements].value, row[pruned].value]);
  const expected = audit.projections.map((row) => [row.projection, row.elements, row.pruned]);
  assert.deepEqual(rows, expected, '#projections');
}

/** Fails if rows of `#tensors` are not these tensors, in any order. */
function assertRows(table, tensors) {
  const fields = Object.keys(COLUMNS);
  const columns = Object.values(COLUMNS).map((word) => columnOf(table, word));
  const rows = table.rows.map((row) => [row[0].text, ...columns.map((column) => row[column].value)]);
  const expected = tensors.map((tensor) => [tensor.name, ...fields.map((field) => tensor[field])]);
  const byName = ([a], [b]) => (a < b ? -1 : 1);
  assert.deepEqual(rows.sort(byName), expected.sort(byName), `#tensors: name, ${fields.join(', ')}`);
}

/** Sorts by pruned weights twice: rows must be in one order, then in the other. */
async function assertSorts(id, operate) {
  const before = await readTable(page, id);
  const column = columnOf(before, 'pruned');
  const first = await sortBy(page, id, column, operate);
  assertOrdered(valuesOf(first.table, column), first.direction, `#${id} by pruned`);
  const second = await sortBy(page, id, column, operate);
  assertOrdered(valuesOf(second.table, column), second.direction, `#${id} by pruned`);
  assert.notEqual(second.direction, first.direction, `#${id}: sorted twice in one direction`);
  for (const { table, direction } of [first, second]) {
    assert.notDeepEqual(namesOf(table), namesOf(before), `#${id}: the order did not change: ${direction}`);
    assert.deepEqual(namesOf(table).sort(), namesOf(before).sort(), `#${id}: other rows than before`);
  }
}

/** Types into the filter: exactly the matching tensors must be left. */
async function assertFilters(text, expected) {
  assert.ok(expected.length > 0 && expected.length <= ROWS, `${expected.length} tensors match ${text}`);
  await page.type('input#filter', text);
  const said = `1–${expected.length} of ${expected.length} tensors`;
  await until(async () => (await shown()).startsWith(said), `#shown does not say "${said}"`);
  assertRows(await readTable(page, 'tensors'), expected);
}

/** What `#shown` says. */
const shown = () => page.$eval('output#shown', ({ textContent }) => textContent.trim());

const isDisabled = (id) => page.$eval(`button#${id}`, ({ disabled }) => disabled);

/** Turns to the next or previous page of rows. */
async function turn(id, expected) {
  await page.click(`button#${id}`);
  let said;
  await until(async () => (said = await shown()).startsWith(expected), () => `#shown says "${said}", expected "${expected}"`);
}

/** Moves the focus to an element by Tab alone. */
async function tabTo(selector) {
  const isFocused = () => page.$eval(selector, (element) => element === document.activeElement);
  for (let pressed = 0; !(await isFocused()); pressed += 1) {
    assert.ok(pressed < TABS, `${selector} cannot be reached by Tab`);
    await page.keyboard.press('Tab');
  }
}

/** Number of colors in a canvas. A copy is read, as Chromium writes to the console if a canvas itself often is. */
function colors(selector) {
  return page.$eval(selector, (canvas) => {
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return new Set(new Uint32Array(copy.getImageData(0, 0, width, height).data.buffer)).size;
  });
}

/** The tensor whose map has most columns of tiles. */
const widest = ({ tensors }) => tensors.reduce((most, tensor) => (tensor.shape.at(-1) > most.shape.at(-1) ? tensor : most));

/** Chooses the option with a text. */
async function choose(selector, text) {
  const option = await page.$$eval(`${selector} option`, (options, text) => {
    return options.find(({ textContent }) => textContent.includes(text))?.value;
  }, text);
  assert.notEqual(option, undefined, `${selector} has no option ${text}`);
  await page.select(selector, option);
}

/** What `#tile-value` says. */
const tileValue = () => page.$eval('output#tile-value', ({ textContent }) => textContent.trim());

/** What `#tile-value` says after a key. */
async function tileAfter(key) {
  await page.keyboard.press(key);
  return tileValue();
}
