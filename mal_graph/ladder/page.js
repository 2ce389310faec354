"use strict";
(() => {
  const [held, keys] = JSON.parse(document.getElementById("data").textContent);
  const unpack = (value) => {
    if (!Array.isArray(value)) return value;
    if (value[0] < 0) return value.slice(1).map(unpack);
    const record = {};
    keys[value[0]].forEach((key, index) => (record[key] = unpack(value[index + 1])));
    return record;
  };
  const data = unpack(held);
  const { ladder, rows, folds, sizes } = data;
  const models = [ladder.base, ladder.donor].filter(Boolean);
  const sides = ["base", "donor"];
  const rungs = ladder.rungs || [];
  const svg = document.getElementById("ladder");
  const panel = document.getElementById("panel");
  const rungAt = sides.map((side) => new Map(rungs.map((rung, index) => [rung[side], index])));
  const rowOf = models.map((_, side) => new Map(rows.flatMap((row, index) => (row[side] === null ? [] : [[row[side], index]]))));
  const foldOf = rows.map((_, index) => folds.findIndex(([start, stop]) => start <= index && index < stop));
  const called = (own) => own.name || "(no name)";
  const open = new Set();
  let pinned = null;
  let shown = () => true;

  const counts = { row: 0, fold: 0 };
  const lines = [...svg.querySelectorAll("g.row, g.fold")].map((element) => {
    const kind = element.classList.contains("row") ? "row" : "fold";
    const one = { element, row: null, fold: null, y: null };
    one[kind] = element.dataset[kind] = counts[kind]++;
    return one;
  });
  const lineOfRow = new Map(lines.filter((one) => one.row !== null).map((one) => [one.row, one]));
  const lineOfFold = new Map(lines.filter((one) => one.fold !== null).map((one) => [one.fold, one]));
  const place = (side, row) => (rows[row][side] === null ? null : models[side].places[rows[row][side]]);
  const pairOf = (row) =>
    models.reduce((found, _, side) => found ?? (rows[row][side] === null ? null : rungAt[side].get(rows[row][side])), null) ?? null;
  const places = (row) => models.map((_, side) => place(side, row)).filter(Boolean);

  for (const one of lines) {
    const told =
      one.fold !== null
        ? folds[one.fold].slice(2)
        : models.flatMap((_, side) => (place(side, one.row) ? [`${sides[side]} ${called(place(side, one.row))}`] : []));
    const pair = one.row === null ? null : pairOf(one.row);
    if (pair !== null) one.element.dataset.pair = pair;
    one.element.setAttribute("role", "button");
    one.element.setAttribute("tabindex", "-1");
    one.element.setAttribute("aria-label", [...told, ...(pair !== null ? [`score ${rungs[pair].score.toFixed(2)}`] : [])].join(", "));
    if (one.fold !== null) one.element.setAttribute("aria-expanded", "false");
  }

  // --- where everything lies: the same as in drawing.py ---------------------------------------------------------

  const heightOf = (one) =>
    one.fold !== null ? sizes.fold : Math.max(...places(one.row).map((own) => sizes[own.role]));

  const isVisible = (one) => {
    if (one.fold !== null) {
      const [start, stop] = folds[one.fold];
      for (let row = start; row < stop; row++) if (shown(row)) return true;
      return false;
    }
    return shown(one.row) && (foldOf[one.row] < 0 || open.has(foldOf[one.row]));
  };

  const number = (value) => String(Math.round(value * 10) / 10);

  function lay() {
    let y = sizes.top;
    for (const one of lines) {
      const height = isVisible(one) ? heightOf(one) : null;
      one.y = height === null ? null : y + height / 2;
      y += height || 0;
      if (one.y === null) one.element.setAttribute("display", "none");
      else {
        one.element.removeAttribute("display");
        one.element.setAttribute("transform", `translate(0,${number(one.y)})`);
      }
      if (one.fold !== null) one.element.setAttribute("aria-expanded", open.has(one.fold));
    }
    svg.setAttribute("height", number(y + sizes.bottom));
    svg.setAttribute("viewBox", `${sizes.left} 0 ${sizes.width} ${number(y + sizes.bottom)}`);
    models.forEach((_, side) => drawEdges(side));
    drawCrossings();
  }

  const lineOf = (side, index) => {
    const row = rowOf[side].get(index);
    const own = lineOfRow.get(row);
    return own.y === null && foldOf[row] >= 0 ? lineOfFold.get(foldOf[row]) : own;
  };

  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  function drawEdges(side) {
    const group = svg.querySelector(`.edges.${sides[side]}`);
    const heights = [...new Set([...rowOf[side].keys()].map((index) => lineOf(side, index).y))]
      .filter((y) => y !== null)
      .sort((a, b) => a - b);
    const above = new Map(heights.slice(1).map((y, index) => [y, heights[index]]));
    const drawn = new Set();
    const paths = [];
    models[side].places.forEach((own, index) => {
      const end = lineOf(side, index).y;
      for (const source of own.reads || []) {
        const start = lineOf(side, source).y;
        const key = `${start} ${end}`;
        if (start === null || end === null || start === end || drawn.has(key)) continue;
        drawn.add(key);
        const bow = number((side ? 1 : -1) * Math.min(sizes.widest, 14 + 13 * Math.log2(1 + Math.abs(end - start) / 36)));
        const [a, b] = [number(start), number(end)];
        const d = above.get(end) === start ? `M0 ${a}L0 ${b}` : `M0 ${a}C${bow} ${a} ${bow} ${b} 0 ${b}`;
        paths.push(shape("path", { class: "edge line", d }));
      }
    });
    group.replaceChildren(...paths);
  }

  function drawCrossings() {
    const group = svg.querySelector(".crossings");
    group.replaceChildren();
    if (models.length < 2) return;
    rungs.forEach((rung, index) => {
      const [mine, theirs] = [lineOf(0, rung.base), lineOf(1, rung.donor)];
      if (mine === theirs || mine.y === null || theirs.y === null) return;
      const [a, b, x] = [number(mine.y + sizes.bar), number(theirs.y + sizes.bar), sizes.gutter];
      const d = `M${-x} ${a}C0 ${a} 0 ${b} ${x} ${b}`;
      const made = shape("g", { class: "crossing", "data-pair": index });
      const width = number(0.8 + 2.7 * rung.score);
      const path = shape("path", { class: `${data.styles[rung.relation]} line`, d });
      path.style.strokeWidth = width;
      made.append(path);
      group.append(made);
    });
  }

  // --- the panel -------------------------------------------------------------------------------------------------

  const element = (name, text = "", classes = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    if (classes) made.className = classes;
    return made;
  };

  const listed = (terms) => {
    const list = element("dl");
    for (const [term, text] of terms) {
      if (text === "" || text === null || text === undefined) continue;
      list.append(element("dt", term), element("dd", String(text)));
    }
    return list;
  };

  const share = (value) => `${Math.round(100 * value)} %`;
  const figure = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2));

  function axes(side, own) {
    const list = element("ul", "", "axes");
    for (const axis of own.axes || []) {
      const way = axis.units ? ` (${axis.units})` : "";
      const item = element("li", `${axis.tensor}, axis ${axis.axis}${way}: `);
      axis.groups.forEach((index) => {
        const group = models[side].groups[index];
        const button = element("button", `${group.name} (${group.units} units, ${group.state})`);
        button.type = "button";
        if (group.reason) button.title = group.reason;
        button.addEventListener("click", () => light(side, index));
        item.append(button, " ");
        if (group.reason) item.append(element("small", group.reason));
      });
      list.append(item);
    }
    return list;
  }

  function bars(parts) {
    const list = element("dl", "", "parts");
    for (const [name, value] of Object.entries(parts)) {
      const meter = element("meter");
      meter.value = value;
      meter.setAttribute("aria-label", `${name} ${figure(value)}`);
      const text = element("dd");
      text.append(meter, ` ${figure(value)}`);
      list.append(element("dt", name), text);
    }
    return list;
  }

  function heat(map) {
    const figureOf = (name, bytes) => {
      const made = element("figure");
      const canvas = element("canvas");
      canvas.width = canvas.height = map.size;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `cosines of ${map.size} base units with donor units, ${name} they were assigned`);
      const context = canvas.getContext("2d");
      const image = context.createImageData(map.size, map.size);
      const raw = atob(bytes);
      for (let i = 0; i < raw.length; i++) {
        const signed = raw.charCodeAt(i) - (raw.charCodeAt(i) > 127 ? 256 : 0);
        const value = Math.max(-1, signed / 127);
        const pale = 255 * (1 - Math.abs(value));
        image.data.set(value < 0 ? [pale, pale, 255, 255] : [255, pale * 0.85 + 38 * (1 - Math.abs(value)), pale, 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
      made.append(canvas, element("figcaption", `${name} assignment`));
      return made;
    };
    const both = element("div", "", "heat");
    both.append(figureOf("before", map.before), figureOf("after", map.after));
    return both;
  }

  function describePlace(side, own) {
    const part = element("section");
    part.append(element("h2", models.length > 1 ? `${sides[side]}: ${called(own)}` : called(own)));
    part.append(
      listed([
        ["kind", [own.kind, own.window].filter(Boolean).join(" ")],
        ["units", own.units ? `${own.units[0]} → ${own.units[1]}` : ""],
        ["weight", own.shape && own.shape.length ? own.shape.join(" × ") : ""],
        ["parameters", own.parameters ? own.parameters.toLocaleString("en") : ""],
        ["note", own.note],
      ])
    );
    if (own.axes && own.axes.length) part.append(axes(side, own));
    return part;
  }

  function describePair(index) {
    const rung = rungs[index];
    const part = element("section");
    part.append(element("h2", `pair, score ${figure(rung.score)}`));
    part.append(listed([["widths", rung.relation], ["why", rung.reason]]));
    part.append(bars(rung.parts || {}));
    const next = rung.runner_up;
    if (next) part.append(element("p", `Next: ${next.donor} with ${figure(next.score)}; ${next.reason}.`));
    for (const text of rung.differences || []) part.append(element("p", text, "difference"));
    const units = rung.units;
    if (units) {
      part.append(
        listed([
          ["units assigned", `${units.assigned} of ${units.units[0]}, donor has ${units.units[1]}`],
          ["median cosine", `${figure(units.cosine)} (at random ${figure(units.random)})`],
          ["norms, donor over base", figure(units.norm_ratio)],
          ["merged at lambda", units.lam === null || units.lam === undefined ? "" : figure(units.lam)],
          ["entries merged", units.matched === null || units.matched === undefined ? "" : share(units.matched)],
        ])
      );
      if (units.heat) part.append(heat(units.heat));
    }
    return part;
  }

  function show(row) {
    const parts = [];
    const pair = pairOf(row);
    if (pair !== null && models.length > 1) {
      parts.push(describePair(pair));
      parts.push(describePlace(0, models[0].places[rungs[pair].base]));
      parts.push(describePlace(1, models[1].places[rungs[pair].donor]));
    } else {
      models.forEach((_, side) => {
        const own = place(side, row);
        if (own) parts.push(describePlace(side, own));
      });
    }
    panel.querySelector("#detail").replaceChildren(...parts);
  }

  function pin(row) {
    svg.querySelectorAll(".pinned").forEach((other) => other.classList.remove("pinned"));
    pinned = row;
    panel.querySelector("#unpin").hidden = row === null;
    if (row === null) return;
    lineOfRow.get(row).element.classList.add("pinned");
    show(row);
  }

  function light(side, index) {
    const wanted = models.map(() => new Set());
    wanted[side].add(index);
    const group = models[side].groups[index];
    for (const other of group.partners || []) wanted[1 - side].add(other);
    svg.classList.add("lit");
    let count = 0;
    for (const one of lines) {
      if (one.row === null) continue;
      const isLit = models.some((model, own) => {
        const here = place(own, one.row);
        return here && (here.axes || []).some((axis) => axis.groups.some((g) => wanted[own].has(g)));
      });
      one.element.classList.toggle("moves", isLit);
      if (isLit && foldOf[one.row] >= 0) lineOfFold.get(foldOf[one.row]).element.classList.add("moves");
      count += isLit;
    }
    say(`${count} rows move with group ${cut(group.name, sizes.name)}; Escape ends this`);
  }

  function unlight() {
    svg.classList.remove("lit");
    svg.querySelectorAll(".moves").forEach((other) => other.classList.remove("moves"));
  }

  // --- finding ---------------------------------------------------------------------------------------------------

  const status = document.getElementById("status");
  const say = (text) => (status.textContent = text);
  const search = document.getElementById("search");
  const filter = document.getElementById("filter");
  let hits = [];
  let at = -1;

  function find() {
    const words = search.value.trim().toLowerCase();
    hits = words === "" ? [] : rows.map((_, row) => row).filter((row) => places(row).some((own) => called(own).toLowerCase().includes(words)));
    at = -1;
    for (const one of lines) one.element.classList.toggle("hit", one.row !== null && hits.includes(one.row));
    say(words === "" ? "" : `${hits.length} found; Enter shows the next`);
  }

  function goTo(row) {
    if (foldOf[row] >= 0) open.add(foldOf[row]);
    if (!shown(row)) filter.value = "all";
    refilter();
    focus(lineOfRow.get(row));
    pin(row);
  }

  function refilter() {
    const isLayer = (row) => places(row).some((own) => own.role === "layer");
    const tests = {
      all: () => true,
      alone: (row) => isLayer(row) && pairOf(row) === null,
      low: (row) => pairOf(row) !== null && rungs[pairOf(row)].score < 0.6,
      kept: (row) => isLayer(row) && places(row).some((own) => own.note),
    };
    shown = tests[filter.value];
    lay();
  }

  // --- narrow windows: names and titles are cut as in shapes.py ----------------------------------------------------

  const cut = (text, longest) => {
    if (text.length <= longest) return text;
    const head = Math.floor((longest - 1) / 3);
    return `${text.slice(0, head)}…${text.slice(text.length - (longest - 1 - head))}`;
  };
  const cutEnd = (text, longest) => (text.length <= longest ? text : `${text.slice(0, longest - 1)}…`);
  const cutTitle = (title, longest) => {
    const end = title.lastIndexOf(": ");
    const [name, said] = end < 0 ? ["", title] : [title.slice(0, end), title.slice(end)];
    return cutEnd(cut(name, Math.max(Math.floor((3 * longest) / 5), longest - said.length)) + said, longest);
  };

  const narrow = matchMedia("(max-width: 640px)");
  const names = [...svg.querySelectorAll(".row .name, .fold .name, .title")].map((text) => {
    const wide = text.lastChild.data;
    const title = text.querySelector("title");
    const isTitle = text.closest(".fold") !== null;
    return [text.lastChild, wide, (isTitle ? cutTitle : cut)(title && isTitle ? title.textContent : wide, sizes.narrow)];
  });

  function fit() {
    const isNarrow = narrow.matches && models.length > 1;
    for (const [node, wide, small] of names) node.data = isNarrow ? small : wide;
  }

  narrow.addEventListener("change", fit);
  fit();

  // --- hands -----------------------------------------------------------------------------------------------------

  function focus(one) {
    svg.querySelectorAll('[tabindex="0"]').forEach((other) => other.setAttribute("tabindex", "-1"));
    one.element.setAttribute("tabindex", "0");
    one.element.focus();
    one.element.scrollIntoView({ block: "nearest" });
  }

  function toggle(fold) {
    if (!open.delete(fold)) open.add(fold);
    lay();
  }

  function act(one) {
    if (one.fold !== null) toggle(one.fold);
    else pin(one.row === pinned ? null : one.row);
  }

  // A row is wider than what is drawn in it: what lies at the height of the pointer is meant.
  const byElement = new Map(lines.map((one) => [one.element, one]));
  const lineAt = (event) => {
    const own = event.target.closest("g.row, g.fold");
    if (own) return byElement.get(own);
    const crossing = event.target.closest("g.crossing");
    if (crossing) return lineOf(0, rungs[Number(crossing.dataset.pair)].base);
    const y = event.clientY - svg.getBoundingClientRect().top;
    return lines.find((one) => one.y !== null && Math.abs(one.y - y) <= heightOf(one) / 2);
  };
  const glance = (one) => one && one.row !== null && pinned === null && show(one.row);

  svg.addEventListener("click", (event) => {
    const one = lineAt(event);
    if (!one) return;
    focus(one);
    act(one);
  });
  svg.addEventListener("mouseover", (event) => glance(lineAt(event)));
  svg.addEventListener("focusin", (event) => glance(byElement.get(event.target)));

  svg.addEventListener("keydown", (event) => {
    const visible = lines.filter((one) => one.y !== null);
    const here = visible.findIndex((one) => one.element === document.activeElement);
    const steps = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: visible.length - 1 };
    if (event.key in steps) {
      const next = visible[Math.max(0, Math.min(visible.length - 1, steps[event.key]))];
      if (next) focus(next);
    } else if ((event.key === "Enter" || event.key === " ") && here >= 0) act(visible[here]);
    else return;
    event.preventDefault();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      pin(null);
      unlight();
      say("");
    } else if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    }
  });

  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || hits.length === 0) return;
    at = (at + 1) % hits.length;
    goTo(hits[at]);
    say(`${at + 1} of ${hits.length}`);
  });
  filter.addEventListener("change", refilter);
  document.getElementById("unfold").addEventListener("click", () => {
    const isAll = folds.every((_, index) => open.has(index));
    folds.forEach((_, index) => (isAll ? open.delete(index) : open.add(index)));
    lay();
  });
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });
  document.getElementById("unpin").addEventListener("click", () => pin(null));
  document.documentElement.classList.add("live");
  const first = lines.find((one) => one.y !== null || !one.element.hasAttribute("display"));
  if (first) first.element.setAttribute("tabindex", "0");
  for (const one of lines) {
    const moved = /,(.*)\)/.exec(one.element.getAttribute("transform"));
    one.y = one.element.hasAttribute("display") ? null : Number(moved[1]);
  }
})();
