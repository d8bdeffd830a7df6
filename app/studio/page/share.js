// The tab Share: a form for `python -m app share RUN FOLDER`.

import { $, call, follow, make } from "./common.js";

let runs = "runs";
const quoted = (text) => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function show() {
  const run = `${runs}/${$("run").value}`;
  $("command").textContent = `python -m app share ${quoted(run)} ${quoted($("folder").value)}`;
  const folder = quoted($("folder").value);
  $("serve").textContent = [
    `python -m http.server --bind 127.0.0.1 --directory ${folder} 8200`,
    "# then open http://localhost:8200/",
  ].join("\n");
}

function suggest() {
  $("folder").value = `shared/${$("run").value}`;
  show();
}

$("run").addEventListener("change", suggest);
$("folder").addEventListener("input", show);

$("share").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("trouble").textContent = "";
  $("done").hidden = true;
  $("write").disabled = true;
  try {
    await call("/api/share", { run: $("run").value, folder: $("folder").value });
    await finish();
  } catch (error) {
    $("trouble").textContent = error.message;
  } finally {
    $("write").disabled = false;
  }
});

$("job-stop").addEventListener("click", () => call("/api/job/stop", {}));

async function finish() {
  const parts = { box: $("job"), words: $("job-words"), lines: $("job-lines"), stop: $("job-stop") };
  const job = await follow(parts);
  if (job?.what === "share") $("done").hidden = job.code !== 0;
}

try {
  const state = await call("/api/state");
  runs = state.runs_folder;
  $("run").replaceChildren(...state.runs.map((name) => make("option", { value: name }, name)));
  if (state.current) $("run").value = state.current;
  $("write").disabled = state.runs.length === 0;
  if (!state.runs.length) $("trouble").textContent = "There is no finished run to share yet.";
  suggest();
  document.body.dataset.ready = "yes";
  if ((await call("/api/job")).job?.running) await finish();
} catch (error) {
  $("trouble").textContent = error.message;
}
