// The report: a table that can be sorted and searched, and viewers that open in place. Needs viewer.js before it.
{
  const rows = JSON.parse(document.getElementById("rows")?.textContent || "[]");
  const PAGE = 100;
  const [NUMBER, NAME, WHAT, SCORE, SCORE_TEXT, MARGIN, COMPARED, PEAK, ABOVE, FRACTION, WARNINGS, STUDY, ADDRESS, THUMBNAIL] =
    Array.from({ length: 14 }, (_, index) => index);
  const table = document.querySelector("table.ranking");
  const element = (tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    Object.assign(made, properties);
    made.append(...children);
    return made;
  };

  if (table && rows.length) {
    const view = { by: NUMBER, down: false, page: 0, text: "", warned: false, grouped: false };
    const body = table.tBodies[0];
    const tools = document.getElementById("tools");
    tools.hidden = false;
    const search = document.getElementById("search");
    const warned = document.getElementById("warned");
    const grouped = document.getElementById("grouped");
    const counted = document.getElementById("counted");
    const [before, after] = [document.getElementById("before"), document.getElementById("after")];
    grouped.parentElement.hidden = new Set(rows.map((row) => row[STUDY])).size < 2;
    const chosen = () => {
      const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
      const found = rows.filter((row) => {
        const text = `${row[NAME]} ${row[WHAT]} ${row[STUDY]}`.toLowerCase();
        return words.every((word) => text.includes(word)) && (!view.warned || row[WARNINGS]);
      });
      const best = new Map(); // rank of a study: that of its most suspicious input
      for (const row of found) best.set(row[STUDY], Math.min(best.get(row[STUDY]) ?? Infinity, row[NUMBER]));
      const order = (one, other) => {
        if (view.grouped && one[STUDY] !== other[STUDY]) return best.get(one[STUDY]) - best.get(other[STUDY]);
        const [a, b] = [one[view.by], other[view.by]];
        const sign = view.down ? -1 : 1;
        if (a === b) return one[NUMBER] - other[NUMBER];
        if (a === null || b === null) return a === null ? 1 : -1;
        return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
      };
      return found.sort(order);
    };
    const line = (row) => {
      const name = element("th", { scope: "row" }, element("a", { href: row[ADDRESS], textContent: row[NAME] }),
        element("span", { className: "what", textContent: row[WHAT] }));
      if (row[STUDY]) name.append(element("span", { className: "what", textContent: `study ${row[STUDY]}` }));
      if (row[WARNINGS])
        name.append(element("span", { className: "flag", textContent: `${row[WARNINGS]} warning${row[WARNINGS] > 1 ? "s" : ""}` }));
      const score = element("td", { className: "score" }, element("span", { className: "figure", textContent: row[SCORE_TEXT] }));
      if (row[MARGIN]) score.append(" ", element("span", { className: "what", textContent: `margin ${row[MARGIN]}` }));
      if (row[COMPARED]) score.append(" ", element("span", { className: "what", textContent: row[COMPARED] }));
      if (row[SCORE] !== null) {
        const bar = element("span", { className: "track bar" }, element("span", { className: "value" }));
        bar.firstChild.style.width = `${100 * row[SCORE]}%`;
        score.append(bar);
      }
      const picture = element("td", { className: "thumb wide" });
      if (row[THUMBNAIL]) picture.append(element("img", { alt: "", loading: "lazy", src: row[THUMBNAIL] }));
      return element("tr", {}, element("td", { className: "rank", textContent: row[NUMBER] }), picture, name, score,
        element("td", { className: "wide", textContent: row[PEAK] }), element("td", { className: "wide", textContent: row[ABOVE] }));
    };
    const draw = () => {
      const found = chosen();
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      view.page = Math.min(view.page, pages - 1);
      const part = found.slice(view.page * PAGE, (view.page + 1) * PAGE);
      const lines = [];
      let study = null;
      for (const row of part) {
        if (view.grouped && row[STUDY] !== study) {
          study = row[STUDY];
          const count = found.filter((other) => other[STUDY] === study).length;
          const cell = element("th", { colSpan: 6, scope: "rowgroup", textContent:
            `${study ? `study ${study}` : "no study"}, ${count} input${count > 1 ? "s" : ""}` });
          lines.push(element("tr", { className: "group" }, cell));
        }
        lines.push(line(row));
      }
      body.replaceChildren(...lines);
      const first = view.page * PAGE + 1;
      counted.textContent = found.length === rows.length && pages === 1 ? `${rows.length} inputs`
        : found.length ? `${first} to ${first + part.length - 1} of ${found.length}` : "none";
      before.disabled = view.page === 0;
      after.disabled = view.page === pages - 1;
      before.hidden = after.hidden = pages === 1;
      for (const head of table.tHead.querySelectorAll("th[data-sort]"))
        head.setAttribute("aria-sort", Number(head.dataset.sort) === view.by ? (view.down ? "descending" : "ascending") : "none");
    };
    for (const head of table.tHead.querySelectorAll("th[data-sort]")) {
      const button = element("button", { type: "button", textContent: head.textContent, className: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const by = Number(head.dataset.sort);
        view.down = by === view.by ? !view.down : by === SCORE || by === FRACTION;
        view.by = by;
        view.page = 0;
        draw();
      });
    }
    const changed = (change) => () => {
      change();
      view.page = 0;
      draw();
    };
    search.addEventListener("input", changed(() => (view.text = search.value)));
    warned.addEventListener("change", changed(() => (view.warned = warned.checked)));
    grouped.addEventListener("change", changed(() => (view.grouped = grouped.checked)));
    before.addEventListener("click", () => { view.page--; draw(); });
    after.addEventListener("click", () => { view.page++; draw(); });
    draw();
  }

  for (const article of document.querySelectorAll("article")) {
    const kept = article.querySelector("script.preview");
    const plot = article.querySelector(".plot svg");
    const place = article.querySelector(".place");
    const button = article.querySelector("button.open");
    const page = article.querySelector("a.open")?.getAttribute("href");
    let viewer = null;
    let mark = () => {}; // shows in the plot where the viewer is
    const open = (index) => {
      if (viewer) return viewer.go(index);
      button.hidden = true;
      article.classList.add("opened");
      viewer = openViewer(place, JSON.parse(kept.textContent), index);
      viewer.focus();
      return undefined;
    };
    if (kept) {
      button.hidden = false;
      button.addEventListener("click", () => open(null));
      place.addEventListener("slice", (event) => mark(event.detail));
    }
    if (!plot || !(kept || page)) continue;
    const low = Number(plot.dataset.low);
    const high = Number(plot.dataset.high);
    const left = Number(plot.dataset.left);
    const right = Number(plot.dataset.right);
    const times = plot.dataset.times ? JSON.parse(plot.dataset.times) : null;
    const marker = plot.querySelector(".marker");
    mark = (index) => {
      const at = left + (((times ? times[index] : index) - low) / (high - low)) * (right - left);
      marker.setAttribute("d", `M${at},${plot.dataset.top}V${plot.dataset.bottom}`);
    };
    plot.classList.add("clickable");
    plot.addEventListener("click", (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse());
      const part = Math.min(Math.max((point.x - left) / (right - left), 0), 1);
      const wanted = low + part * (high - low);
      const index = times
        ? times.reduce((best, time, here) => (Math.abs(time - wanted) < Math.abs(times[best] - wanted) ? here : best), 0)
        : Math.round(wanted);
      if (kept) open(index);
      else location.href = `${page}#${index}`;
    });
  }
}
