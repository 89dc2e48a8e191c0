// Reads and sorts the tables of a report.

import assert from 'node:assert/strict';
import { until } from './watched-page.mjs';

/**
 * A table as it is shown: `headers` with `label` and `sort` (aria-sort), and `rows` of cells with `text` and `value`,
 * the number of `data-value`.
 */
export function readTable(page, id) {
  return page.$eval(`table#${id}`, (table) => {
    const headers = [...table.tHead.rows].at(-1).cells;
    const cell = ({ textContent, dataset }) => ({
      text: textContent.trim(),
      value: dataset.value === undefined ? undefined : Number(dataset.value),
    });
    return {
      headers: [...headers].map((header) => ({
        label: header.textContent.trim().toLowerCase(),
        sort: header.getAttribute('aria-sort'),
      })),
      rows: [...table.tBodies].flatMap((body) => [...body.rows].map((row) => [...row.cells].map(cell))),
    };
  });
}

/** The index of the first column whose header begins with a word. */
export function columnOf(table, word) {
  const index = table.headers.findIndex(({ label }) => label.startsWith(word));
  const all = table.headers.map(({ label }) => `"${label}"`).join(', ');
  assert.notEqual(index, -1, `no column "${word}"; there are ${all}`);
  return index;
}

/** The numbers in a column. */
export const valuesOf = (table, column) => table.rows.map((row) => row[column].value);

/** The names of the rows. */
export const namesOf = (table) => table.rows.map((row) => row[0].text);

/** The selector of the button in the header of a column. */
export const sortButton = (id, column) => `table#${id} thead tr:last-child > :nth-child(${column + 1}) button`;

/** Sorts by a column with a function that operates its button, and returns the table and its new direction. */
export async function sortBy(page, id, column, operate) {
  const before = (await readTable(page, id)).headers[column].sort;
  await operate(sortButton(id, column));
  let table;
  const changed = async () => {
    table = await readTable(page, id);
    return table.headers[column].sort !== before;
  };
  await until(changed, `#${id}: aria-sort of column ${column} remains "${before}"`);
  const { label, sort } = table.headers[column];
  assert.ok(['ascending', 'descending'].includes(sort), `#${id}: aria-sort of "${label}" is "${sort}"`);
  const others = table.headers.filter((header, index) => index !== column && (header.sort ?? 'none') !== 'none');
  assert.deepEqual(others, [], `#${id}: sorted by "${label}", but another column says that it is`);
  return { table, direction: sort };
}

/** Fails if values are not in the order that aria-sort states. */
export function assertOrdered(values, direction, where) {
  const sign = direction === 'ascending' ? 1 : -1;
  const ordered = [...values].sort((a, b) => sign * (a - b));
  assert.deepEqual(values, ordered, `${where}: not ${direction}`);
}
