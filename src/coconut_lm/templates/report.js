"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // -- light or dark --
  const root = document.documentElement, button = byId("theme"), themes = ["system", "light", "dark"];
  const kept = (() => { try { return window.localStorage; } catch { return null; } })();
  function dress(theme) {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = "theme: " + theme;
    try { kept?.setItem("coconut-lm-theme", theme); } catch { /* a page of a file may not keep anything */ }
  }
  let theme = kept?.getItem("coconut-lm-theme");
  if (!themes.includes(theme)) theme = "system";
  dress(theme);
  button.hidden = false;
  button.addEventListener("click", () => dress(theme = themes[(themes.indexOf(theme) + 1) % 3]));

  // -- examples: filter, search, leaf through --
  const { runs, examples } = JSON.parse(byId("data").textContent);
  if (!examples.length) { byId("none").hidden = false; return; }
  const PAGE = 10, several = runs.length > 1;
  const all = (right) => (each) => each.answers.every((a) => a.ok === right);
  const one = (run, right) => (each) => each.answers.some((a) => a.r === run && a.ok === right);
  const tests = [["all", () => true]];
  if (several) {
    tests.push(["right in every run", all(true)], ["wrong in every run", all(false)]);
    tests.push(["runs differ", (each) => new Set(each.answers.map((a) => a.ok)).size > 1]);
    runs.forEach((name, run) => tests.push([name + " right", one(run, true)], [name + " wrong", one(run, false)]));
  } else tests.push(["right", all(true)], ["wrong", all(false)]);
  const lengths = [...new Set(examples.map((each) => each.steps))].filter((n) => n != null).sort((a, b) => a - b);
  for (const each of examples)
    each.text = [each.q, each.gold, ...each.answers.map((a) => a.out)].join("\n").toLowerCase();

  function element(kind, style, text) {
    const made = document.createElement(kind);
    if (style) made.className = style;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function option(select, value, text) {
    const made = element("option", "", text);
    made.value = value;
    select.append(made);
  }
  function answer(given) {
    const box = element("div", "answer"), of = element("p", "of");
    box.style.setProperty("--of", `var(--series-${given.r % 7})`);
    of.append(element("span", "verdict " + (given.ok ? "right" : "wrong"), given.ok ? "✓ right" : "✗ wrong"));
    const told = several ? [runs[given.r]] : [];
    if (given.t) told.push(given.t === 1 ? "1 thought" : given.t + " thoughts");
    if (given.w !== undefined) told.push(given.w + " tokens written");
    if (!given.ended) told.push("did not end");
    of.append(element("span", "muted", "  " + told.join(" · ")));
    box.append(of, element("pre", "", given.out.trim() || "(nothing was written)"));
    return box;
  }
  function shown(each) {
    const box = element("div", "example"), fold = element("details");
    const asked = each.q.trim().split(/(?<=[.!?])\s+/).pop();
    fold.append(element("summary", "", asked), element("p", "question", each.q));
    const gold = element("p", "muted", "right answer: " + each.gold);
    const answers = element("div", "answers");
    answers.append(...each.answers.map(answer));
    box.append(fold, gold, answers);
    return box;
  }

  let page = 0;
  const verdicts = byId("verdicts"), steps = byId("steps"), search = byId("search");
  function update() {
    const test = tests[verdicts.value][1], length = steps.value, words = search.value.toLowerCase().trim();
    const found = examples.filter((each) =>
      test(each) && (length === "" || String(each.steps) === length) && each.text.includes(words));
    page = Math.max(0, Math.min(page, Math.ceil(found.length / PAGE) - 1));
    const part = found.slice(page * PAGE, (page + 1) * PAGE);
    byId("list").replaceChildren(...part.map(shown));
    const where = part.length ? `${page * PAGE + 1} to ${page * PAGE + part.length} of ${found.length}` : "none";
    byId("count").textContent = found.length === examples.length ? where : `${where} (of ${examples.length} in all)`;
    byId("before").disabled = page === 0;
    byId("after").disabled = (page + 1) * PAGE >= found.length;
  }
  tests.forEach(([name], number) => option(verdicts, number, name));
  option(steps, "", "any number");
  lengths.forEach((number) => option(steps, number, String(number)));
  steps.parentElement.hidden = lengths.length < 2;
  for (const filter of [verdicts, steps, search]) filter.addEventListener("input", () => { page = 0; update(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("before").addEventListener("click", () => { page -= 1; update(); });
  byId("after").addEventListener("click", () => { page += 1; update(); });
  byId("filters").hidden = false;
  document.querySelector(".pager").hidden = false;
  update();
})();
