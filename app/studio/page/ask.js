// The tab Ask: one large photo, its answer in words, what speaks for it, and a strip of the others.

import { detail, summary } from "./answers.js";
import { Camera } from "./camera.js";
import { $, acceptFiles, call, colourOf, form, make, mark, say, send, showBars } from "./common.js";
import { Evidence, shape } from "./evidence.js";

const LOUDEST = 2000; // milliseconds between two answers of the camera that are read out

let state = { current: null, classes: [], runs: [], samples: 0 };
const photos = [];
let chosen = null;
let line = Promise.resolve(); // requests go one after the other

// ---- one photo -----------------------------------------------------------------------------------

class Photo {
  constructor(file) {
    this.file = file;
    this.url = null;
    this.answer = null;
    this.run = null; // that gave the answer
    this.evidence = null;
    this.button = make("button", { type: "button", "aria-pressed": "false" });
    this.button.append(make("span", { className: "words" }, file.name));
    this.button.addEventListener("click", () => choose(this));
    this.element = make("li", {}, this.button);
  }

  // Its answer in words, once there is one.
  get verdict() {
    return this.answer.words ?? "no answer";
  }

  async ask() {
    try {
      const [answer, run] = await ask(this.file);
      if (run !== this.run) this.evidence = null; // which spoke for another run's answer
      [this.answer, this.run] = [answer, run];
    } catch (error) {
      this.answer = { error: error.message, label: null, words: null };
    }
    this.button.style.setProperty("--colour", colourOf(this.answer, state.classes));
    // Only now: the program has looked whether the file could harm the one who decodes it.
    if (this.answer.error === null && !this.url) await this.load();
    const inside = this.url ? make("img", { src: this.url, alt: "" }) : this.file.name;
    this.button.replaceChildren(
      this.url ? inside : make("span", { className: "words" }, inside),
      make("span", { className: "unseen" }, `${this.file.name}: ${this.verdict}`),
    );
    if (chosen === this && !camera.on) show();
  }

  // Finds out whether the browser can show the file; else the program sends it as a JPEG.
  async load() {
    for (const source of [async () => this.file, async () => (await send("/api/screen", form(this.file))).blob()]) {
      const url = URL.createObjectURL(await source().catch(() => new Blob()));
      const image = new Image();
      image.src = url;
      try {
        await image.decode();
        this.url = url;
        this.ratio = [image.naturalWidth, image.naturalHeight];
        return;
      } catch {
        URL.revokeObjectURL(url);
      }
    }
  }
}

// Returns the answer to one photo, and the run that gave it.
async function ask(file) {
  const { answers, run } = await call("/api/ask", form(file));
  await follow(run);
  return [answers[0], run];
}

// Another window may have opened another run: then all photos are asked about again. An answer that
// comes late, from the run before, changes nothing.
async function follow(run) {
  if (run === state.current) return;
  const found = await call("/api/state");
  if (found.current !== state.current) opened(found);
}

function add(files) {
  const fresh = files.map((file) => new Photo(file));
  photos.unshift(...fresh);
  $("strip").prepend(...fresh.map((photo) => photo.element));
  stopCamera();
  choose(fresh[0]);
  fresh.forEach((photo) => queue(photo));
  say(fresh.length === 1 ? `Looking at ${fresh[0].file.name}` : `Looking at ${fresh.length} photos`);
  line = line.then(() => say(summary(fresh)));
}

function queue(photo) {
  line = line.then(() => photo.ask());
}

// ---- the large photo -----------------------------------------------------------------------------

function choose(photo) {
  stopCamera();
  chosen = photo;
  photos.forEach((each) => each.button.setAttribute("aria-pressed", String(each === photo)));
  show();
}

function show() {
  const { answer, url, file } = chosen;
  $("empty").hidden = url !== null;
  $("empty").textContent = answer === null ? "Looking at it…" : "No picture.";
  $("photo").hidden = url === null;
  if (url !== null) {
    $("photo").src = url;
    $("photo").alt = `${file.name}, the photo that is answered`;
    shape(chosen.ratio);
  }
  $("name").textContent = file.name;
  $("similar").hidden = true;
  showAnswer(answer);
  evidence.show(answer?.error === null && url !== null ? chosen : null);
  if (answer?.label === "neither") showSimilar();
}

function showAnswer(answer) {
  const fine = answer !== null && answer.error === null;
  $("verdict").textContent = answer === null ? "…" : answer.words ?? "no answer";
  $("trouble").textContent = answer?.error ?? "";
  $("detail").textContent = fine ? detail(answer.label) : "";
  if (answer !== null) mark($("answer"), answer, state.classes);
  else $("answer").style.removeProperty("--colour");
  if (fine) showBars($("bars"), answer, state.classes);
  else $("bars").replaceChildren();
  $("like").hidden = !fine || camera.on || answer.label === "neither";
}

// ---- why -----------------------------------------------------------------------------------------

const evidence = new Evidence(async (photo) => {
  const found = await call("/api/why", form(photo.file));
  await follow(found.run);
  return found.run === photo.run ? found : null; // what another run says fits no answer of this one
});

$("why").addEventListener("click", () => evidence.toggle());

// ---- similar training photos ---------------------------------------------------------------------

$("like").addEventListener("click", showSimilar);

async function showSimilar() {
  const photo = chosen;
  $("like").hidden = true;
  $("similar").hidden = false;
  $("similar-list").replaceChildren();
  $("similar-words").textContent = "Looking for them…";
  let found, run;
  try {
    ({ photos: found, run } = await call("/api/similar", form(photo.file)));
    await follow(run);
  } catch (error) {
    if (chosen === photo) $("similar-words").textContent = error.message;
    return;
  }
  if (chosen !== photo || run !== photo.run) return;
  if (found === null) {
    $("similar-words").textContent = "This run does not tell which photos it learned from.";
    return;
  }
  $("similar-words").textContent =
    photo.answer.label === "neither" ? "Even these, the nearest, are far from it." : "";
  $("similar-list").replaceChildren(...found.map((each) => similar(each, encodeURIComponent(run))));
}

function similar(each, run) {
  const words = `${each.label}, likeness ${each.likeness.toFixed(2)}`;
  const picture = each.there
    ? make("img", { src: `/api/training/${each.number}?run=${run}`, alt: each.name, loading: "lazy" })
    : make("span", { className: "gone" }, "the photo is not there any more");
  return make("li", {}, picture, words);
}

// ---- the camera ----------------------------------------------------------------------------------

let [lastSaid, lastWords] = [0, ""];

const camera = new Camera($("video"), async (blob) => {
  let answer;
  try {
    [answer] = await ask(blob);
  } catch (error) {
    answer = { error: error.message, label: null, words: null };
  }
  if (!camera.on) return;
  showAnswer(answer);
  $("video").dataset.answers = Number($("video").dataset.answers ?? 0) + 1;
  const now = performance.now();
  if (answer.words !== lastWords && now - lastSaid > LOUDEST) {
    [lastSaid, lastWords] = [now, answer.words];
    say(answer.words ?? answer.error);
  }
});

function stopCamera() {
  if (!camera.on) return;
  camera.stop();
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
}

$("camera").addEventListener("click", async () => {
  if (camera.on) {
    stopCamera();
    if (chosen) show();
    return;
  }
  $("trouble").textContent = "";
  try {
    await camera.start();
  } catch (error) {
    $("trouble").textContent = error.message;
    return;
  }
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  for (const id of ["photo", "similar", "like", "empty"]) $(id).hidden = true;
  evidence.show(null);
  $("name").textContent = "the camera, live";
  photos.forEach((each) => each.button.setAttribute("aria-pressed", "false"));
});

// ---- the page ------------------------------------------------------------------------------------

acceptFiles(add);

$("choose").addEventListener("change", (event) => {
  if (event.target.files.length) add([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});

// Takes the state once another run is open, and asks that one about all photos.
function opened(found) {
  state = found;
  showState();
  photos.forEach((photo) => queue(photo));
  if (chosen === null || camera.on) return;
  $("similar").hidden = true;
  evidence.show(null);
  showAnswer(null);
}

function showState() {
  const names = state.classes;
  $("knows").textContent = state.current
    ? `The run ${state.current} tells ${names.slice(0, -1).join(", ")} from ${names.at(-1)}, and says when it is none of these.`
    : "No run answers yet. Teach something first, or train on a folder: python train.py --data DIR";
  $("run").replaceChildren(...state.runs.map((name) => make("option", { value: name }, name)));
  if (state.current) $("run").value = state.current;
  $("run-choice").hidden = state.runs.length < 2;
}

$("run").addEventListener("change", async () => {
  try {
    opened(await call("/api/open", { name: $("run").value }));
  } catch (error) {
    $("trouble").textContent = error.message;
    showState();
  }
});

async function samples() {
  for (let number = 0; number < state.samples; number += 1) {
    const blob = await (await send(`/api/sample/${number}`)).blob();
    const photo = new Photo(new File([blob], `drawing ${number + 1}`, { type: blob.type }));
    await photo.load(); // the program has drawn it itself
    photos.push(photo);
    $("strip").append(photo.element);
    if (chosen === null && !camera.on) choose(photo);
    queue(photo);
  }
}

try {
  state = await call("/api/state");
  showState();
  if (state.current) await samples();
  document.body.dataset.ready = "yes";
} catch (error) {
  $("trouble").textContent = error.message;
}
