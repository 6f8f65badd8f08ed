// Shows one rollout at a time, token by token: colours, a strip chart, and what student and teacher thought at one token.
// Text reaches the page as textContent alone. One span a token; its class is its colour.
"use strict";
(() => {
  const root = document.getElementById("token-map");
  const data = JSON.parse(document.getElementById("token-map-data").textContent);
  const find = (selector) => root.querySelector(selector);
  const [box, strip, panel] = [find(".tokens"), find(".tm-strip svg"), find(".tm-token")];
  const LEVELS = 5, BINS = 800, SIGNED = ["omega", "credit"];
  const LEGENDS = {
    omega: ["repelled from the teacher", "attracted to the teacher", "omega"],
    entropy: [null, "the student is undecided", "entropy, nats"],
    gap: ["the teacher likes the token less than the student does", "more", "gap, nats"],
    credit: ["the update makes the token less likely", "more likely", "advantage"],
    choice: ["the teacher's most likely token is another one", "the token is the teacher's most likely one", null],
  };
  const state = {mode: "omega", filter: "all", rollout: null, here: 0, forks: []};
  let spans = [];

  // Numbers and small elements

  const value = (name, i) => (state.rollout[name] ? state.rollout[name][i] : null);
  const written = (number, sign) =>
    number === null ? "–" : ((sign && number > 0 ? "+" : "") + (number / data.unit).toFixed(3)).replace("-", "−");
  const percent = (number) => {
    if (number === null) return "–";
    const share = (100 * number) / data.unit;
    return share === 0 ? "< 0.01 %" : `${share.toFixed(share > 99.95 ? 0 : share < 10 ? 2 : 1)} %`;
  };
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const visible = (text) => (text === "" ? "(nothing)" : text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "␣"));
  const likely = (side, i) => {
    const of = state.rollout[side];
    if (!of) return [];
    const count = of.tokens.length / state.rollout.tokens.length;
    return of.tokens.slice(i * count, (i + 1) * count).map((token, k) => [token, of.probabilities[i * count + k]]);
  };

  // Colours

  function colorOf(i) {
    if (state.mode === "choice") {
      const first = likely("teacher", i)[0];
      return first === undefined ? "" : first[0] === state.rollout.tokens[i] ? "up2" : "down5";
    }
    const number = value(state.mode, i);
    const share = LEVELS * Math.min(1, Math.abs(number) / data.scales[state.mode]);
    const level = number && SIGNED.includes(state.mode) ? Math.max(1, Math.round(share)) : Math.round(share); // the side always shows
    return level === 0 ? "" : (number > 0 ? (state.mode === "entropy" ? "fork" : "up") : "down") + level;
  }

  function color() {
    spans.forEach((span, i) => (span.className = colorOf(i)));
    const [low, high, unit] = LEGENDS[state.mode], legend = find(".tm-legend");
    if (!state.rollout[state.mode === "choice" ? "teacher" : state.mode]) {
      const why = state.mode === "omega" ? "No direction was recorded: the method has none." : "Not recorded.";
      legend.replaceChildren(element("span", "muted", why));
      return;
    }
    const sample = (kind, levels, text) => { // every shade that a token may have, the strongest outside
      const both = element("span", "tm-sample");
      for (const level of levels) both.append(element("code", kind + level, " "));
      both.append(" " + text);
      return both;
    };
    const shades = state.mode === "choice" ? {up: [2], down: [5]} : {up: [1, 2, 3, 4, 5], down: [5, 4, 3, 2, 1]};
    legend.replaceChildren(sample(state.mode === "entropy" ? "fork" : "up", shades.up, high));
    if (low) legend.prepend(sample("down", shades.down, low));
    const note = unit ? `full colour from ${written(data.scales[state.mode])} (${unit})`
      : `agreement here ${agreement([state.rollout])}; in all rollouts ${agreement(data.rollouts)}`;
    legend.append(element("span", "muted", note + (SIGNED.includes(state.mode) ? "; no colour: exactly 0" : "")));
  }

  // How often the sampled token is the teacher's most likely one: among all tokens, and among each rollout's most undecided fifth
  function agreement(rollouts) {
    const [all, forks] = [[], []];
    for (const {tokens, teacher, entropy} of rollouts) {
      if (!teacher || !entropy) continue;
      const agrees = tokens.map((token, i) => teacher.tokens[(i * teacher.tokens.length) / tokens.length] === token);
      const order = tokens.map((_, i) => i).sort((a, b) => entropy[b] - entropy[a]);
      all.push(...agrees);
      forks.push(...order.slice(0, Math.ceil(order.length / 5)).map((i) => agrees[i]));
    }
    const share = (list) => `${Math.round((100 * list.filter(Boolean).length) / list.length)} %`;
    return `${share(all)} of tokens, ${share(forks)} of the fifth with the highest entropy`;
  }

  // The strip: entropy above, gap below; long rollouts show the extremes of neighbouring tokens

  function drawStrip() {
    const {entropy, gap, tokens} = state.rollout, count = tokens.length, bins = Math.min(count, BINS);
    const largest = (column) => (column || []).reduce((most, number) => Math.max(most, Math.abs(number)), 0) || 1;
    const [topEntropy, topGap] = [largest(entropy), largest(gap)];
    const [areas, ups, downs] = [[], [], []];
    for (let bin = 0; bin < bins; bin++) {
      let [high, up, down] = [0, 0, 0];
      for (let i = Math.floor((bin * count) / bins); i < Math.floor(((bin + 1) * count) / bins); i++) {
        high = Math.max(high, value("entropy", i));
        up = Math.max(up, value("gap", i));
        down = Math.min(down, value("gap", i));
      }
      const bar = (list, base, size) => size && list.push(`M${bin} ${base}v${-size.toFixed(2)}h1V${base}z`);
      bar(areas, 56, (46 * high) / topEntropy);
      bar(ups, 80, (18 * up) / topGap);
      bar(downs, 80, (18 * down) / topGap);
    }
    const height = gap ? 100 : 60; // without a gap there is no lower half
    strip.setAttribute("viewBox", `0 0 ${bins} ${height}`);
    strip.style.height = `${height}px`;
    const path = (name, d) => find(name).setAttribute("d", d);
    path(".tm-entropy", areas.join(""));
    path(".tm-up", ups.join(""));
    path(".tm-down", downs.join(""));
    path(".tm-zero", (gap ? `M0 80H${bins}` : "") + `M0 56H${bins}`);
    path(".tm-forks", state.forks.map((i) => `M${((i + 0.5) * bins) / count} 0v7`).join(""));
    find(".tm-name-entropy").textContent = `entropy, up to ${written(topEntropy)} nats`;
    for (const key of strip.parentElement.querySelectorAll(".tm-of-gap")) key.hidden = !gap;
    find(".tm-name-gap").textContent = `gap, up to ±${written(topGap)} nats; above 0`;
  }

  // One token

  function table(side, i) {
    const made = element("table", "tm-likely"), rows = likely(side, i), token = state.rollout.tokens[i];
    made.append(element("caption", "", side === "student" ? "Student" : "Teacher"));
    for (const [other, probability] of rows) {
      const row = made.insertRow(), name = element("th", other === token ? "sampled" : "", visible(data.texts[other]));
      name.scope = "row";
      if (other === token) name.title = "the sampled token";
      const cell = element("td", "", percent(probability));
      cell.style.setProperty("--share", `${(100 * probability) / data.unit}%`);
      row.append(name, cell);
    }
    if (!rows.length) made.insertRow().append(element("td", "", "not recorded"));
    return made;
  }

  // A token that is part of a character stands as its bytes, ⟨e286⟩: the character is that of its neighbours together
  function character(i) {
    const part = (place) => /^⟨((?:[0-9a-f]{2})+)⟩$/.exec(data.texts[state.rollout.tokens[place]]);
    if (!part(i)) return "";
    let [first, last] = [i, i];
    while (part(first - 1)) first--;
    while (part(last + 1)) last++;
    const bytes = [];
    for (let place = first; place <= last; place++) bytes.push(...part(place)[1].match(/../g).map((byte) => parseInt(byte, 16)));
    return new TextDecoder().decode(new Uint8Array(bytes));
  }

  function inspect(i) {
    const omega = value("omega", i), names = [
      ["omega", written(omega, true) + (omega > 0 ? " attract" : omega < 0 ? " repel" : "")],
      ["entropy", `${written(value("entropy", i))} nats`],
      ["gap", `${written(value("gap", i), true)} nats`],
      ["advantage", written(value("credit", i), true)],
    ].filter(([name]) => state.rollout[name === "advantage" ? "credit" : name]);
    const heading = element("h4", "", ""), list = element("dl"), both = element("div", "tm-both");
    heading.append(element("code", "", visible(data.texts[state.rollout.tokens[i]])));
    const fork = state.forks.indexOf(i), whole = character(i);
    if (whole) heading.append(element("small", "", `part of ${whole}`));
    heading.append(element("small", "", `token ${i + 1} of ${state.rollout.tokens.length}` + (fork < 0 ? "" : `, fork ${fork + 1} of ${state.forks.length}`)));
    for (const [name, text] of names) list.append(element("dt", "", name), element("dd", "", text));
    both.append(table("student", i));
    if (data.taught) both.append(table("teacher", i));
    panel.replaceChildren(heading, list, both);
    return `${data.texts[state.rollout.tokens[i]]}, ` + names.map((pair) => pair.join(" ")).join(", ");
  }

  function mark(scroll) {
    const old = box.querySelector("#tm-here"), span = spans[state.here];
    if (old && old !== span) for (const name of ["id", "role", "aria-label", "aria-selected"]) old.removeAttribute(name);
    if (!span) return;
    span.id = "tm-here"; // drawn as the cursor, read out by screen readers
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "true");
    span.setAttribute("aria-label", inspect(state.here));
    const x = ((state.here + 0.5) * Math.min(spans.length, BINS)) / spans.length, line = find(".tm-cursor");
    for (const [name, at] of [["x1", x], ["x2", x], ["y1", 0], ["y2", 100]]) line.setAttribute(name, at);
    if (scroll) reveal(span);
  }

  function reveal(span) { // within the text's own box alone: the page stays where it is
    const [inner, outer] = [span.getBoundingClientRect(), box.getBoundingClientRect()];
    if (inner.top < outer.top + 30) box.scrollTop += inner.top - outer.top - outer.height / 3;
    else if (inner.bottom > outer.bottom - 10) box.scrollTop += inner.bottom - outer.bottom + outer.height / 3;
  }

  function go(i) {
    state.here = Math.max(0, Math.min(spans.length - 1, i));
    mark(true);
  }

  function goLine(direction) { // the token nearest to this one on the line above or below
    const place = (i) => spans[i].getBoundingClientRect(), start = place(state.here), middle = (start.left + start.right) / 2;
    let best = null, line = null;
    for (let i = state.here + direction; i >= 0 && i < spans.length; i += direction) {
      const at = place(i), away = Math.abs((at.left + at.right) / 2 - middle);
      if (line === null && (at.top - start.top) * direction > 4) line = at.top;
      if (line !== null && Math.abs(at.top - line) > 4) break;
      if (line !== null && (best === null || away < best[0])) best = [away, i];
    }
    if (best) go(best[1]);
  }

  function goFork(direction) {
    const next = state.forks.filter((i) => (i - state.here) * direction > 0);
    if (next.length) go(direction > 0 ? next[0] : next[next.length - 1]);
    else if (state.forks.length) go(direction > 0 ? state.forks[0] : state.forks[state.forks.length - 1]); // round again
  }

  // One rollout

  function spelledOut(text) { // white space that moves the line has a sign before it: "[", "↵", new line
    const span = element("span");
    if (!/[\n\t]/.test(text)) span.textContent = text;
    else for (const part of text.split(/([\n\t])/)) span.append(...(/[\n\t]/.test(part) ? [element("i", part === "\n" ? "nl" : "tab")] : []), part);
    return span;
  }

  function strongest(entropy) {
    const order = (entropy || []).map((number, i) => [number || 0, i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    return order.slice(0, Math.max(3, Math.min(40, Math.round(order.length / 20)))).map((pair) => pair[1]);
  }

  function show(rollout) {
    state.rollout = rollout;
    const forks = strongest(rollout.entropy);
    state.here = forks[0] || 0;
    state.forks = forks.sort((a, b) => a - b);
    find(".rollout h3").textContent = `Problem ${rollout.id}`;
    const status = find(".rollout .status");
    status.textContent = (rollout.right ? "✓ " : "✗ ") + rollout.status;
    status.className = "status " + (rollout.right ? "correct" : "other");
    const cut = rollout.length - rollout.tokens.length;
    const share = (sign) => `${Math.round((100 * rollout.omega.filter((number) => number * sign > 0).length) / rollout.omega.length)} %`;
    find(".tm-facts").textContent = `verifier's advantage ${rollout.advantage} · ${rollout.length} tokens` +
      (cut ? `, the last ${cut} are not shown` : "") + (rollout.omega ? ` · ${share(1)} attracted, ${share(-1)} repelled` : "");
    find(".tm-problem").textContent = rollout.problem || "–";
    find(".tm-reference").textContent = rollout.reference || "nothing";
    spans = rollout.tokens.map((token) => spelledOut(data.texts[token]));
    color();
    box.replaceChildren(...spans);
    drawStrip();
    mark(true);
    press(".tm-rollouts", data.rollouts.indexOf(rollout));
  }

  const shown = () => data.rollouts.filter((r) => state.filter === "all" || r.right === (state.filter === "right"));

  function filter() {
    const kept = shown();
    root.querySelectorAll(".tm-rollouts button").forEach((button) => (button.hidden = !kept.includes(data.rollouts[button.dataset.value])));
    root.querySelectorAll(".tm-problem-of").forEach((group) => (group.hidden = !group.querySelector("button:not([hidden])")));
    find(".tm-none").hidden = kept.length > 0;
    find(".rollout").hidden = kept.length === 0;
    if (kept.length && !kept.includes(state.rollout)) show(kept[0]);
  }

  function goRollout(direction) {
    const kept = shown(), place = kept.indexOf(state.rollout);
    if (kept.length) show(kept[(place + direction + kept.length) % kept.length]);
  }

  // Choices and input

  function press(group, chosen) {
    for (const button of find(group).querySelectorAll("[data-value]")) button.setAttribute("aria-pressed", String(button.dataset.value === String(chosen)));
  }

  function choose(name, chosen) {
    state[name] = chosen;
    press(`[data-choice=${name}]`, chosen);
    (name === "mode" ? color : filter)();
  }

  const groups = new Map();
  data.rollouts.forEach((rollout, index) => {
    if (!groups.has(rollout.id)) {
      const group = element("div", "tm-problem-of");
      group.append(element("span", "tm-label", rollout.id));
      groups.set(rollout.id, group);
    }
    const group = groups.get(rollout.id), number = group.querySelectorAll("button").length + 1;
    const button = element("button", rollout.right ? "right" : "", (rollout.right ? "✓" : "✗") + number);
    button.type = "button";
    button.dataset.value = index;
    button.setAttribute("aria-label", `Problem ${rollout.id}, rollout ${number}, ${rollout.status}`);
    group.append(button);
  });
  find(".tm-rollouts").append(...groups.values());

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.jump) goFork(Number(button.dataset.jump));
    else if (button.closest(".tm-rollouts")) show(data.rollouts[button.dataset.value]);
    else choose(button.parentElement.dataset.choice, button.dataset.value);
  });
  const at = (event) => spans.indexOf(event.target.closest(".tokens > span"));
  for (const kind of ["mouseover", "click"])
    box.addEventListener(kind, (event) => {
      if (at(event) < 0) return;
      state.here = at(event);
      mark();
    });
  const jump = (event) => {
    const frame = strip.getBoundingClientRect();
    go(Math.floor(((event.clientX - frame.left) / frame.width) * spans.length));
  };
  strip.addEventListener("click", jump);
  strip.addEventListener("pointermove", (event) => event.buttons && jump(event));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const moves = {n: () => goFork(1), p: () => goFork(-1), "]": () => goRollout(1), "[": () => goRollout(-1)};
    const inText = {
      ArrowRight: () => go(state.here + 1), ArrowLeft: () => go(state.here - 1), ArrowDown: () => goLine(1), ArrowUp: () => goLine(-1),
      Home: () => go(0), End: () => go(spans.length - 1),
    };
    const move = moves[event.key] || (document.activeElement === box && inText[event.key]);
    if (!move || find(".rollout").hidden) return;
    event.preventDefault();
    move();
  });

  const columns = [["omega", "omega"], ["gap", "gap"], ["entropy", "entropy"], ["credit", "credit"], ["choice", "teacher"]];
  const recorded = columns.filter(([, column]) => data.rollouts.some((rollout) => rollout[column])).map(([mode]) => mode);
  for (const button of root.querySelectorAll("[data-choice=mode] button")) button.hidden = !recorded.includes(button.dataset.value);
  for (const named of root.querySelectorAll(".tm-of-teacher")) named.hidden = !data.taught;
  state.mode = recorded[0] || "entropy";
  press("[data-choice=mode]", state.mode);
  choose("filter", "all"); // shows the first rollout
})();
