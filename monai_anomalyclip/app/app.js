// The page of `monai-anomalyclip app`; viewer.js stands before it. Everything is asked of the server that sent it.
"use strict";
{
  const get = (id) => document.getElementById(id);
  const element = (tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    Object.assign(made, properties);
    made.append(...children);
    return made;
  };
  const state = { study: null, input: null, revision: 0, shown: 200, viewer: null, saving: Promise.resolve() };
  const SHOWN = 200;

  const ask = async (method, path, content) => {
    const answer = await fetch(`api/${path}`, {
      method,
      headers: content === undefined ? {} : { "content-type": "application/json" },
      body: content === undefined ? undefined : JSON.stringify(content),
    });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : "The server refused this.");
    return found;
  };
  const say = (text, wrong = false) => {
    get("message").textContent = text;
    get("message").classList.toggle("wrong", wrong);
  };
  const trying = (work) => async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      say(error.message, true);
      return undefined;
    }
  };

  // New studies
  const settings = () => ({
    threshold: get("threshold").value === "" ? null : Number(get("threshold").value),
    preset: get("preset").value,
  });
  const send = trying(async (files, title) => {
    if (!files.length) return say("It holds no files.", true);
    const study = await ask("POST", "studies", { title: title.slice(0, 120), ...settings() });
    let done = 0;
    for (const { file, path } of files) {
      const answer = await fetch(`api/studies/${study.id}/files?path=${encodeURIComponent(path)}`, { method: "PUT", body: file });
      if (!answer.ok) {
        const { detail } = await answer.json().catch(() => ({}));
        await ask("DELETE", `studies/${study.id}`);
        throw new Error(typeof detail === "string" ? detail : "A file was refused.");
      }
      done += 1;
      say(`${done} of ${files.length} files sent`);
    }
    await ask("POST", `studies/${study.id}/start`);
    say("");
    return choose(study.id);
  });
  const readEntries = (folder) => new Promise((resolve, reject) => {
    const reader = folder.createReader();
    const found = [];
    const more = () => reader.readEntries((entries) => {
      found.push(...entries);
      if (entries.length) more();
      else resolve(found);
    }, reject);
    more();
  });
  const walk = async (entry, before) => {
    const path = before ? `${before}/${entry.name}` : entry.name;
    if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path }];
    const parts = await Promise.all((await readEntries(entry)).map((inner) => walk(inner, path)));
    return parts.flat();
  };
  const drop = get("drop");
  for (const name of ["dragenter", "dragover"])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", trying(async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files].map((file) => ({ file, path: file.name }));
    const files = entries.length ? (await Promise.all(entries.map((entry) => walk(entry, "")))).flat() : plain;
    await send(files, entries[0]?.name ?? plain[0]?.path ?? "Study");
  }));
  for (const id of ["folder", "files"])
    get(id).addEventListener("change", async () => {
      const chosen = [...get(id).files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
      await send(chosen, chosen[0]?.path.split("/")[0] ?? "Study");
      get(id).value = "";
    });
  get("named").addEventListener("submit", trying(async (event) => {
    event.preventDefault();
    if (!get("path").value.trim()) return say("Name a folder or a file on this machine.", true);
    const study = await ask("POST", "studies", { path: get("path").value.trim(), ...settings() });
    get("path").value = "";
    say("");
    return choose(study.id);
  }));

  // Studies
  const words = (study) => {
    const failed = study.failed ? `, ${study.failed} failed` : "";
    const done = `${study.finished + study.failed} of ${study.total} inputs`;
    return {
      receiving: "files are being sent",
      queued: "waiting for its turn",
      running: study.total ? `being scored: ${done}${failed}` : "being read",
      finished: `done: ${study.finished} inputs${failed}`,
      failed: study.message,
      stopped: `stopped: ${done}${failed}`,
    }[study.state];
  };
  const listStudies = (studies) => {
    get("studies").replaceChildren(...studies.map((study) => {
      const button = element("button", { type: "button" }, element("strong", { textContent: study.title }), " ",
        element("span", { className: "what", textContent: `${study.created.slice(0, 16).replace("T", " ")}, ${words(study)}` }));
      if (study.id === state.study) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => choose(study.id));
      return element("li", {}, button);
    }));
    if (!studies.length) get("studies").append(element("li", { className: "what", textContent: "None yet." }));
  };
  const choose = trying(async (id) => {
    if (state.study !== id) {
      state.study = id;
      state.input = null;
      state.shown = SHOWN;
      get("input").hidden = true;
    }
    await refresh();
  });
  const showStudy = (study) => {
    get("study").hidden = false;
    get("study-title").textContent = study.title;
    get("state").textContent = words(study);
    get("caution").textContent = study.caution;
    get("caution").hidden = !study.caution;
    get("progress").max = Math.max(study.total, 1);
    get("progress").value = study.state === "finished" ? Math.max(study.total, 1) : study.finished + study.failed;
    get("stop").hidden = !["queued", "running"].includes(study.state);
    get("again").hidden = !["stopped", "failed", "receiving"].includes(study.state);
    get("remove").hidden = !get("stop").hidden;
    get("export").hidden = study.state !== "finished";
    get("export").href = `api/studies/${study.id}/accepted.zip`;
    state.revision = study.revision;
    const lines = study.inputs.slice(0, state.shown).map((input) => {
      const name = element("th", { scope: "row" });
      if (input.status === "done") {
        const button = element("button", { type: "button", textContent: input.name });
        button.addEventListener("click", () => look(input));
        name.append(button);
      } else name.append(input.name);
      name.append(element("span", { className: "what", textContent:
        [input.label, { done: input.what, waiting: "waiting", failed: input.reason }[input.status]].filter(Boolean).join(" · ") }));
      const review = element("td");
      if (input.accepted) review.append(element("span", { className: "accepted", textContent: `${input.accepted} accepted` }), " ");
      if (input.rejected) review.append(element("span", { textContent: `${input.rejected} rejected` }));
      const score = element("td", { className: "score" }, element("span", { className: "figure", textContent: input.score ?? "" }));
      if (input.margin) score.append(" ", element("span", { className: "what", textContent: `margin ${input.margin}` }));
      return element("tr", { className: input.status }, element("td", { className: "rank", textContent: input.rank ?? "" }),
        name, score, element("td", { className: "wide", textContent: input.peak ?? "" }), review);
    });
    const focused = document.activeElement?.closest("#inputs tr")?.rowIndex;
    get("inputs").replaceChildren(...lines);
    if (focused) get("inputs").rows[focused - 1]?.querySelector("button")?.focus();
    get("more").hidden = study.inputs.length <= state.shown;
  };
  get("more").addEventListener("click", () => {
    state.shown += SHOWN;
    refresh();
  });
  get("stop").addEventListener("click", trying(async () => {
    await ask("POST", `studies/${state.study}/stop`);
    await refresh();
  }));
  get("again").addEventListener("click", trying(async () => {
    await ask("POST", `studies/${state.study}/start`);
    await refresh();
  }));
  get("remove").addEventListener("click", trying(async () => {
    if (!confirm("Remove this study, its results and its review? Files that were named stay where they are.")) return;
    await ask("DELETE", `studies/${state.study}`);
    state.study = null;
    get("study").hidden = get("input").hidden = true;
    await refresh();
  }));

  // One input
  const look = trying(async (input) => {
    const [preview, found] = await Promise.all([
      ask("GET", `studies/${state.study}/preview?name=${encodeURIComponent(input.name)}`),
      ask("GET", `studies/${state.study}/findings?name=${encodeURIComponent(input.name)}`),
    ]);
    state.input = input.name;
    get("input").hidden = false;
    get("input-title").textContent = input.name;
    get("warnings").replaceChildren(...input.warnings.map((text) => element("p", { className: "warning", textContent: text })));
    const place = element("div", { id: "viewer" });
    get("viewer").replaceWith(place);
    state.viewer = openViewer(place, preview, null);
    showFindings(found, preview.unit);
    get("input").scrollIntoView();
  });
  const showFindings = (found, unit) => {
    state.revision = found.revision;
    get("others").textContent = found.regions.length
      ? found.others ? `${found.others} smaller regions are not listed, and are never exported.` : ""
      : "Nothing reaches the threshold.";
    get("findings").replaceChildren(...found.regions.map((region) => finding(region, unit)));
  };
  const finding = (region, unit) => {
    const several = region.last > region.first;
    const where = unit === "picture" ? "" : several ? `${unit}s ${region.first} to ${region.last}` : `${unit} ${region.slice}`;
    const size = region.volume_ml !== null ? `${region.volume_ml.toPrecision(3)} mL` : region.voxels ? `${region.voxels} pixels` : "";
    const text = [where, size, region.map_max === null ? "" : `map up to ${region.map_max.toFixed(3)}`].filter(Boolean).join(", ");
    const item = element("li", { value: region.number || 1 });
    const button = element("button", { type: "button", textContent: `Show ${unit === "picture" ? "it" : `${unit} ${region.slice}`}` });
    button.addEventListener("click", () => state.viewer.go(region.slice));
    item.append(element("span", { textContent: `${region.number ? text : `The whole input, ${text}`} ` }), button, element("br"));
    const note = element("textarea", { rows: 1, value: region.note, maxLength: 2000, placeholder: "note" });
    note.setAttribute("aria-label", `Note on finding ${region.number}`);
    const save = trying(async () => {
      const verdict = item.querySelector("input:checked").value;
      try {
        const { revision } = await ask("PUT", `studies/${state.study}/review`, {
          name: state.input, finding: region.number, verdict, note: note.value, revision: state.revision });
        state.revision = revision;
        say("Saved.");
      } catch (error) {
        const found = await ask("GET", `studies/${state.study}/findings?name=${encodeURIComponent(state.input)}`);
        showFindings(found, unit);
        throw error;
      }
      await refresh();
    });
    const keep = () => (state.saving = state.saving.then(save)); // a note and a choice come together: one by one
    for (const verdict of ["open", "accepted", "rejected"]) {
      const choice = element("input", { type: "radio", name: `finding-${region.number}`, value: verdict, checked: region.verdict === verdict });
      choice.addEventListener("change", keep);
      item.append(element("label", { className: "choice" }, choice, ` ${{ open: "open", accepted: "accept", rejected: "reject" }[verdict]}`));
    }
    note.addEventListener("change", keep);
    item.append(note);
    return item;
  };

  // Other tabs, and progress
  const refresh = async () => {
    const wanted = state.study;
    const studies = await ask("GET", "studies");
    listStudies(studies);
    if (!wanted) return;
    if (!studies.some((study) => study.id === wanted)) { // removed in another tab
      state.study = null;
      get("study").hidden = get("input").hidden = true;
      return;
    }
    const study = await ask("GET", `studies/${wanted}`);
    if (state.study === wanted) {
      const seen = state.revision; // the review's own answers tell it; what other tabs decide must not pass for seen
      showStudy(study);
      if (state.input) state.revision = seen;
    }
  };
  const poll = async () => {
    try {
      if (!document.hidden) await refresh();
      if (get("message").dataset.lost) {
        delete get("message").dataset.lost;
        say("");
      }
    } catch {
      get("message").dataset.lost = "1";
      say("The program on this machine does not answer: is it still running?", true);
    }
    setTimeout(poll, 1500);
  };
  poll();
}
