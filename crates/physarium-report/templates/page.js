(() => {
"use strict";
const ROWS = 100, OPTIONS = 400, STEPS = 21, LONGEST = 200;
const find = id => document.getElementById(id);
const grouped = n => n.toLocaleString("en-US");
const percent = share => (100 * share).toFixed(2) + " %";
const collator = new Intl.Collator("en", { numeric: true });

/* A name of a stranger's file: characters that are invisible or turn the text are spelled out. */
function shown(name) {
  const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\\]/gu;
  const all = [...name];
  const begin = all.slice(0, LONGEST).join("").replace(unsafe, c => c === "\\" ? "\\\\" : "\\u{" + c.codePointAt(0).toString(16) + "}");
  return all.length > LONGEST ? begin + "… (" + grouped(all.length) + " characters)" : begin;
}

function element(tag, text, properties) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

async function data() {
  const packed = bytesOf(find("data").textContent.trim());
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/* Makes the heads of a table buttons; `sort` gets the column and 1 or -1. */
function sortable(heads, sort) {
  heads.forEach((head, column) => {
    if (head.tagName !== "TH" || !head.textContent) return;
    const button = element("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      sort(column, direction);
    });
  });
}

/* Numbers before texts, unknown ones last in both directions. */
function compare(a, b, direction) {
  const unknown = x => x === null || x === undefined || x === "–";
  if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
  const numbers = typeof a === "number" && typeof b === "number";
  return direction * (numbers ? a - b : collator.compare(a, b));
}

function sortRows(table) {
  const body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  sortable([...table.tHead.rows[0].cells], (column, direction) => {
    body.append(...[...body.rows].sort((a, b) => compare(key(a, column), key(b, column), direction)));
  });
}

/* The table of all targets: the rows of one page, made from the data. */
function tensorTable(tensors, changed) {
  const share = (part, tensor) => part === null || part === undefined ? null : part / tensor.elements;
  const columns = [
    ["tensor", t => t.name, shown, "text"],
    ["projection", t => t.role, shown, "text"],
    ["layer", t => t.layer, grouped],
    ["dtype", t => t.dtype, String, "text"],
    ["shape", t => t.shape.join(" × "), String, "text"],
    ["weights", t => t.elements, grouped],
    ["zero", t => t.zero, grouped],
    ["zero, of tensor", t => share(t.zero, t), percent],
    ["pruned", t => t.pruned, grouped],
    ["pruned, of tensor", t => share(t.pruned, t), percent],
    ...[["changed", "changed"], ["-0.0", "sign_bit_zero"]]
      .filter(([, field]) => tensors.some(t => t[field])).map(([label, field]) => [label, t => t[field], grouped]),
    ["error", t => t.output_error, percent],
    ["error before update", t => t.error_before_update, percent],
  ].filter(([, value]) => tensors.some(t => value(t) !== null && value(t) !== undefined));
  const table = find("tensors"), filter = find("filter"), select = find("filter-projection");
  const [previous, next] = [find("previous"), find("next")];
  let order = tensors, kept = tensors, first = 0;

  function draw() {
    const page = kept.slice(first, first + ROWS);
    table.tBodies[0].replaceChildren(...page.map(tensor => {
      const row = element("tr");
      row.append(...columns.map(([, value, text, kind]) => {
        const v = value(tensor), unknown = v === null || v === undefined;
        const cell = element("td", unknown ? "–" : text(v), { className: kind || "" });
        if (typeof v === "number") cell.dataset.value = v;
        return cell;
      }));
      return row;
    }));
    const range = kept.length ? grouped(first + 1) + "–" + grouped(first + page.length) : "none";
    const all = kept.length === tensors.length ? "" : ", " + grouped(tensors.length) + " in all";
    find("shown").textContent = range + " of " + grouped(kept.length) + " tensor" + (kept.length === 1 ? "" : "s") + all;
    previous.disabled = first === 0;
    next.disabled = first + ROWS >= kept.length;
    changed(page);
  }
  function refilter() {
    const name = filter.value.toLowerCase(), role = select.value;
    kept = order.filter(t => (!role || t.role === role) && t.name.toLowerCase().includes(name));
    first = 0;
    draw();
  }

  table.tHead.rows[0].append(...columns.map(([label, , , kind]) => element("th", label, { scope: "col", className: kind || "" })));
  sortable([...table.tHead.rows[0].cells], (column, direction) => {
    const value = columns[column][1];
    order = [...tensors].sort((a, b) => compare(value(a), value(b), direction));
    refilter();
  });
  for (const role of new Set(tensors.map(t => t.role))) select.append(element("option", shown(role), { value: role }));
  filter.addEventListener("input", refilter);
  select.addEventListener("change", refilter);
  previous.addEventListener("click", () => { first -= ROWS; draw(); });
  next.addEventListener("click", () => { first += ROWS; draw(); });
  draw();
}

/* The maps of some tensors, each with its label. */
function mapsOf(tensors) {
  return tensors.flatMap(tensor => {
    const own = tensor.tile_map ? [{ label: shown(tensor.name), map: tensor.tile_map }] : [];
    const parts = (tensor.matrices || []).filter(m => m.tile_map).map(m => ({
      label: shown(tensor.name) + ", " + shown(m.map) + (m.expert === undefined ? "" : " of expert " + m.expert),
      map: m.tile_map,
    }));
    return own.concat(parts);
  });
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), c => c.charCodeAt(0));
}

/* The map of one tensor at a time. Returns what to call when the table shows other tensors. */
function tileMap(all) {
  const select = find("map-tensor"), canvas = find("tile-map"), says = find("tile-value");
  if (!select) return () => {};
  const style = getComputedStyle(document.documentElement);
  const colors = Array.from({ length: STEPS }, (_, i) => style.getPropertyValue("--h" + i));
  let maps = [], view, at = 0;

  function choose() {
    const { label, map } = maps[select.selectedIndex] || {};
    if (!map) return;
    const { shape: [rows, cols], edge } = map;
    const down = Math.ceil(rows / edge), across = Math.ceil(cols / edge);
    const counts = new DataView(bytesOf(map.zeros).buffer);
    const tile = index => {
      const row = Math.floor(index / across), col = index % across;
      const height = Math.min(edge, rows - row * edge), width = Math.min(edge, cols - col * edge);
      return { row, col, height, width, zeros: counts.getUint32(4 * index, true), all: height * width };
    };
    view = { edge, down, across, tile, scale: Math.max(1, Math.min(40, Math.floor(560 / Math.max(across, down / 1.5)))) };
    canvas.setAttribute("aria-label", "Zeros in the tiles of " + label);
    at = 0;
    draw();
    says.textContent = down + " × " + across + " tiles of " + edge + " × " + edge + " weights. Point at one, or move with the arrow keys.";
  }
  function draw() {
    const { down, across, tile, scale } = view, to = canvas.getContext("2d");
    canvas.width = across * scale;
    canvas.height = down * scale;
    for (let index = 0; index < down * across; index++) {
      const { row, col, zeros, all } = tile(index);
      to.fillStyle = colors[Math.round(zeros / all * (STEPS - 1))];
      to.fillRect(col * scale, row * scale, scale, scale);
    }
  }
  function mark(index) {
    const { edge, tile, scale } = view;
    at = index;
    draw();
    const { row, col, height, width, zeros, all } = tile(index);
    const to = canvas.getContext("2d");
    to.strokeStyle = "#d3262c";
    to.lineWidth = 2;
    to.strokeRect(col * scale + 1, row * scale + 1, Math.max(1, scale - 2), Math.max(1, scale - 2));
    says.textContent = "Rows " + row * edge + "–" + (row * edge + height - 1) + ", columns " + col * edge + "–" + (col * edge + width - 1) +
      ": " + grouped(zeros) + " of " + grouped(all) + " weights are zero, " + percent(zeros / all) + " of the tile.";
  }
  canvas.addEventListener("pointermove", event => {
    if (!view) return;
    const box = canvas.getBoundingClientRect();
    const place = (offset, size, count) => Math.min(count - 1, Math.max(0, Math.floor(offset / size * count)));
    const col = place(event.clientX - box.left - canvas.clientLeft, canvas.clientWidth, view.across);
    const row = place(event.clientY - box.top - canvas.clientTop, canvas.clientHeight, view.down);
    mark(row * view.across + col);
  });
  canvas.addEventListener("keydown", event => {
    if (!view) return;
    const { across, down } = view, row = Math.floor(at / across), col = at % across;
    const moves = {
      ArrowLeft: [row, col - 1], ArrowRight: [row, col + 1], ArrowUp: [row - 1, col], ArrowDown: [row + 1, col],
      Home: [0, 0], End: [down - 1, across - 1],
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const inside = (value, count) => Math.min(count - 1, Math.max(0, value));
    mark(inside(move[0], down) * across + inside(move[1], across));
  });
  select.addEventListener("change", choose);
  const whole = mapsOf(all);
  const list = next => {
    maps = next.slice(0, OPTIONS);
    select.replaceChildren(...maps.map(({ label }) => element("option", label)));
    choose();
  };
  if (whole.length <= OPTIONS) { list(whole); return () => {}; }
  select.parentElement.firstChild.textContent = "Tensor, of those in the table below";
  return page => list(mapsOf(page));
}

function magnified(tiles) {
  const select = find("magnified"), canvas = find("magnified-tile"), says = find("magnified-value");
  if (!select) return;
  const choose = () => {
    const { at: [row, col], shape: [rows, cols], alive, projection } = tiles[select.selectedIndex];
    const bits = bytesOf(alive), scale = 2, to = canvas.getContext("2d");
    canvas.width = cols * scale;
    canvas.height = rows * scale;
    to.fillStyle = "#1b1f24";
    to.fillRect(0, 0, canvas.width, canvas.height);
    to.fillStyle = "#f2c52b";
    let count = 0;
    for (let i = 0; i < rows * cols; i++) {
      if (!(bits[i >> 3] >> (i & 7) & 1)) continue;
      count++;
      to.fillRect(i % cols * scale, Math.floor(i / cols) * scale, scale, scale);
    }
    canvas.setAttribute("aria-label", "Weights of a tile of " + shown(projection) + " that are not zero");
    says.textContent = "Rows " + row + "–" + (row + rows - 1) + ", columns " + col + "–" + (col + cols - 1) + ". Yellow: " +
      grouped(count) + " of " + grouped(rows * cols) + " weights are not zero, " + percent(count / (rows * cols)) + " of the tile.";
  };
  select.append(...tiles.map(({ tensor, expert }) => element("option", shown(tensor) + (expert === undefined ? "" : ", expert " + expert))));
  select.addEventListener("change", choose);
  choose();
}

async function main() {
  document.querySelectorAll("table.sortable").forEach(sortRows);
  if (find("tensors")) {
    const audit = await data();
    tensorTable(audit.tensors, tileMap(audit.tensors));
    magnified(audit.magnified || []);
  }
}
main().then(
  () => { document.body.dataset.ready = "yes"; },
  error => {
    document.body.dataset.ready = "no";
    const place = find("shown");
    if (place) place.textContent = "This browser cannot read the data of the page: " + error.message;
  });
})();
