// The tab Teach: class cards, the camera, a lesson with live bars, and what is saved.

import { Camera } from "./camera.js";
import { $, acceptFiles, call, classColour, follow, form, make, mark, say, showBars } from "./common.js";

const RECORDED = 6; // photos a second while a button is held
const BURST = 10; // photos that a click without holding records, as screen readers click
const AT_ONCE = 8; // files in a request
const BYTES = 30e6; // of them together, unless one alone has more; the program takes 64 MB
const WAIT = 700; // milliseconds between looks while photos wait for their features

let state = { classes: [], enough: 5, most: Infinity, ready: false, trouble: "", lesson: null };
const cards = new Map(); // the number of a class → its card
let recording = null; // the card for which the camera records
let holds = Date.now(); // a number of each hold, and another one after the page is loaded again
let changes = Promise.resolve(); // requests that change something go one after the other

// ---- cards ---------------------------------------------------------------------------------------

class Card {
  constructor(number) {
    this.number = number;
    this.element = $("card").content.firstElementChild.cloneNode(true);
    this.element.dataset.class = number;
    this.nameInput.id = `class-${number}`;
    this.part("label.unseen").htmlFor = this.nameInput.id;
    this.nameInput.addEventListener("change", () => this.rename());
    this.part("input[type=file]").addEventListener("change", (event) => {
      this.addFiles([...event.target.files]);
      event.target.value = "";
    });
    this.part(".empty").addEventListener("click", () => {
      if (this.mayGo(`Remove ${this.count} of ${this.shown}?`)) change({ what: "empty", number });
    });
    this.part(".remove").addEventListener("click", () => {
      if (this.mayGo(`Remove ${this.shown} with ${this.count}?`)) change({ what: "remove", number });
    });
    this.listenToRecord(this.part(".record"));
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  get nameInput() {
    return this.part(".class-name");
  }

  get name() {
    return this.nameInput.value;
  }

  get count() {
    return this.part(".count").textContent;
  }

  // Asks before photos go that may be nowhere else.
  mayGo(question) {
    if (!this.part(".thumbs").children.length) return true;
    return window.confirm(`${question} This cannot be undone.`);
  }

  async rename() {
    const made = await change({ what: "rename", number: this.number, name: this.name });
    // Who types again is not disturbed.
    if (!made && document.activeElement !== this.nameInput) this.nameInput.value = this.shown;
  }

  show(taught, place) {
    const colour = taught.name === "neither" ? "var(--neither)" : classColour(place);
    this.element.style.setProperty("--colour", colour);
    this.part("label.unseen").textContent = `Name of class ${place + 1}`;
    if (document.activeElement !== this.nameInput || this.shown === undefined) {
      this.nameInput.value = taught.name;
    }
    this.shown = taught.name;
    const count = taught.photos.length;
    this.part(".count").textContent = count === 1 ? "1 photo" : `${count} photos`;
    this.part(".empty").hidden = count === 0;
    this.part(".record").setAttribute("aria-label", `Hold to record ${taught.name}`);
    this.part("input[type=file]").setAttribute("aria-label", `Choose photos of ${taught.name}`);
    this.part(".empty").setAttribute("aria-label", `Remove photos of ${taught.name}`);
    this.part(".remove").setAttribute("aria-label", `Remove class ${taught.name}`);
    this.showPhotos(taught);
  }

  showPhotos(taught) {
    const list = this.part(".thumbs");
    const there = new Map([...list.children].map((each) => [Number(each.dataset.photo), each]));
    const wanted = new Set(taught.photos);
    there.forEach((element, number) => wanted.has(number) || element.remove());
    for (const number of taught.photos) {
      if (!there.has(number)) list.prepend(this.thumbnail(number, taught.name));
    }
  }

  thumbnail(number, name) {
    const image = make("img", { src: `/api/teach/photo/${number}`, alt: "", loading: "lazy" });
    const label = `Remove photo ${number} of ${name}`;
    const button = make("button", { type: "button", "aria-label": label, title: "Remove it" }, image);
    button.addEventListener("click", () => change({ what: "forget", number }));
    return make("li", { "data-photo": number }, button);
  }

  addFiles(files) {
    let [some, bytes] = [[], 0];
    for (const file of files) {
      if (some.length === AT_ONCE || (some.length && bytes + file.size > BYTES)) {
        this.send(some, "");
        [some, bytes] = [[], 0];
      }
      some.push(file);
      bytes += file.size;
    }
    if (some.length) this.send(some, "");
  }

  // Returns how many of them were added.
  send(files, moment) {
    const path = `/api/teach/photos/${this.number}?moment=${encodeURIComponent(moment)}`;
    changes = changes.then(async () => {
      try {
        const { added, state: found } = await call(path, form(...files));
        const refused = added
          .map(({ error }, place) => (error === null ? "" : `${files[place].name}: ${error}`))
          .filter(Boolean);
        show(found);
        // A camera that sees the same picture twice is no trouble.
        const full = state.classes.reduce((sum, { photos }) => sum + photos.length, 0) >= state.most;
        if (refused.length && (!moment || full)) trouble(refused.slice(0, 3).join(". "));
        return files.length - refused.length;
      } catch (error) {
        trouble(`Not added: ${files.map((file) => file.name).join(", ")}. ${error.message}`);
        return 0;
      }
    });
    return changes;
  }

  // Records while the button is held: by pointer, or by the keys that press a button.
  listenToRecord(button) {
    let byHand = false; // the click that follows is no click of its own
    const begin = () => {
      byHand = true;
      this.begin();
    };
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      begin();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
      button.addEventListener(name, () => this.end());
    }
    button.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) begin();
    });
    button.addEventListener("keyup", () => this.end());
    button.addEventListener("click", () => {
      if (!byHand) this.begin(BURST);
      byHand = false;
    });
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  async begin(most = Infinity) {
    if (!camera.on) {
      await startCamera();
      if (camera.on && most === Infinity) say("The camera is on. Hold the button again to record.");
      if (most === Infinity) return;
    }
    if (!camera.on) return;
    recording?.card.finish();
    holds += 1;
    recording = { card: this, since: performance.now(), hold: holds, left: most, added: 0 };
    this.part(".record").classList.add("on");
    this.part(".record").textContent = "Recording…";
  }

  end() {
    if (recording?.card !== this || recording.left !== Infinity) return;
    this.finish();
  }

  finish() {
    const held = recording;
    recording = null;
    this.part(".record").classList.remove("on");
    this.part(".record").textContent = "Hold to record";
    changes.then(() => say(`${held.added} photos of ${this.name} were recorded.`));
  }
}

// ---- the state -----------------------------------------------------------------------------------

function show(found) {
  state = found;
  const numbers = new Set(state.classes.map((each) => each.number));
  cards.forEach((card, number) => {
    if (numbers.has(number)) return;
    card.element.remove();
    cards.delete(number);
  });
  state.classes.forEach((taught, place) => {
    if (!cards.has(taught.number)) {
      cards.set(taught.number, new Card(taught.number));
      $("classes").append(cards.get(taught.number).element);
    }
    cards.get(taught.number).show(taught, place);
  });
  const known = state.classes.filter((each) => each.name !== "neither");
  const enough = known.length >= 2 && known.every((each) => each.photos.length >= state.enough);
  $("solve").disabled = !enough;
  $("save-button").disabled = !enough;
  $("add-neither").hidden = known.length < state.classes.length;
  const lacking = known.find((each) => each.photos.length < state.enough);
  $("learned").textContent = learnedWords(known, lacking);
  $("engine").textContent = state.trouble || (state.ready ? "" : "The network is being loaded; photos can be added meanwhile.");
  $("engine").classList.toggle("trouble", state.trouble !== "");
  showScore();
}

function learnedWords(known, lacking) {
  if (known.length < 2) return "Two classes are needed.";
  if (lacking) return `${lacking.name} needs ${state.enough} photos or more.`;
  if (state.lesson === null) return "Press “Teach me”.";
  return state.lesson.stale ? "Something has changed since. Press “Teach me” again." : "";
}

function showScore() {
  const { lesson } = state;
  $("live").hidden = lesson === null;
  $("score").hidden = lesson === null;
  if (lesson === null) return;
  const { score } = lesson;
  $("tiles").hidden = score === null;
  if (score === null) {
    $("score-words").textContent =
      "Nothing can be said yet: the photos of a class are too few, or nearly one picture. Move what you show, change the light and the background, and record again.";
    return;
  }
  const tile = (name) => {
    const element = make("li", {}, make("strong", {}, String(score[name])), name);
    element.style.setProperty("--colour", `var(--${name})`);
    return element;
  };
  $("tiles").replaceChildren(...["right", "wrong", "neither", "unsure"].map(tile));
  const strangers = score.strangers
    ? ` Of ${score.strangers} photos of neither, ${score.refused} were answered with “neither”.`
    : "";
  $("score-words").textContent = `Of ${score.photos} photos, each answered by a copy that had not learned from it, nor from those of the same second.${strangers} New places and new light are harder.`;
}

function trouble(text) {
  $("trouble").textContent = text;
}

// Sends a change; returns whether it was made.
function change(values) {
  trouble("");
  const made = changes.then(async () => {
    try {
      show(await call("/api/teach/change", values));
      return true;
    } catch (error) {
      trouble(error.message);
      return false;
    }
  });
  changes = made;
  return made;
}

function freeName(stem) {
  const taken = new Set(state.classes.map((each) => each.name));
  for (let number = state.classes.length + 1; ; number += 1) {
    if (!taken.has(`${stem} ${number}`)) return `${stem} ${number}`;
  }
}

$("add").addEventListener("click", () => change({ what: "add", name: freeName("class") }));
$("add-neither").addEventListener("click", () => change({ what: "add", name: "neither" }));

// ---- the camera ----------------------------------------------------------------------------------

let lastFrame = 0;

const camera = new Camera(
  $("video"),
  async (blob) => {
    if (recording !== null) {
      const seconds = Math.floor((performance.now() - recording.since) / 1000);
      const held = recording;
      const { card, hold } = held;
      const file = new File([blob], `camera ${hold} ${(lastFrame += 1)}.jpg`, { type: blob.type });
      const sent = card.send([file], `hold ${hold}, second ${seconds}`);
      const counted = sent.then((count) => (held.added += count));
      held.left -= 1;
      if (held.left <= 0) card.finish();
      await counted;
    } else if (state.lesson !== null) {
      await answer(blob);
    }
  },
  { most: RECORDED },
);

async function startCamera() {
  trouble("");
  try {
    await camera.start();
  } catch (error) {
    trouble(error.message);
    return;
  }
  $("empty").hidden = true;
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
}

$("camera").addEventListener("click", () => {
  if (!camera.on) {
    startCamera();
    return;
  }
  recording?.card.finish();
  camera.stop();
  $("empty").hidden = false;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
});

// ---- learning ------------------------------------------------------------------------------------

async function answer(blob) {
  let found;
  try {
    ({
      answers: [found],
    } = await call("/api/teach/ask", form(blob)));
  } catch (error) {
    $("verdict").textContent = error.message;
    return;
  }
  $("verdict").textContent = found.words ?? found.error;
  if (found.error !== null) return;
  mark($("live"), found, state.lesson.classes);
  showBars($("bars"), found, state.lesson.classes);
  $("live").dataset.answers = Number($("live").dataset.answers ?? 0) + 1;
}

$("solve").addEventListener("click", async () => {
  trouble("");
  $("solve").setAttribute("aria-busy", "true");
  $("solve").textContent = "Learning…";
  await changes;
  try {
    show(await call("/api/teach/solve", {}));
    say(state.lesson.score === null ? "Learned." : `Learned. ${$("tiles").innerText.replaceAll("\n", " ")}`);
  } catch (error) {
    trouble(error.message);
  } finally {
    $("solve").removeAttribute("aria-busy");
    $("solve").textContent = "Teach me";
  }
});

$("try").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await answer(file);
});

// ---- saving --------------------------------------------------------------------------------------

const job = {
  box: $("job"),
  words: $("job-words"),
  command: $("job-command"),
  lines: $("job-lines"),
  stop: $("job-stop"),
};
let saved = "";

$("save").addEventListener("submit", async (event) => {
  event.preventDefault();
  trouble("");
  $("saved").hidden = true;
  await changes;
  try {
    await call("/api/teach/save", { name: $("save-name").value.trim() });
    await finishSaving();
  } catch (error) {
    trouble(error.message);
  }
});

$("job-stop").addEventListener("click", () => call("/api/job/stop", {}));

async function finishSaving() {
  const ended = await follow(job);
  if (ended?.what !== "save") return;
  if (ended.code !== 0) {
    say("It was not trained. The photos are saved, and the last line says why.");
    return;
  }
  const found = await call("/api/state");
  saved = ended.result;
  const quoted = (text) => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const [data, run] = [`${found.data_folder}/${saved}`, `${found.runs_folder}/${saved}`];
  $("saved-commands").textContent = [
    `python predict.py --runs ${quoted(found.runs_folder)} --run ${quoted(saved)} PHOTO`,
    `python train.py --data ${quoted(data)}`,
    `python -m app report ${quoted(run)}`,
  ].join("\n");
  $("saved").hidden = false;
  say(`The run ${saved} is ready.`);
}

$("ask-it").addEventListener("click", async () => {
  try {
    await call("/api/open", { name: saved });
    window.location.assign("/ask");
  } catch (error) {
    trouble(error.message);
  }
});

// ---- the page ------------------------------------------------------------------------------------

acceptFiles((files, target) => {
  const number = Number(target.closest?.("[data-class]")?.dataset.class);
  const card = cards.get(number);
  if (card) card.addFiles(files);
  else if (state.lesson !== null) answer(files[0]);
  else say("Drop photos onto the card of a class.");
});

for (;;) {
  try {
    const found = await call("/api/teach/start", {});
    if (!cards.size || !recording) show(found);
    document.body.dataset.ready = "yes";
    if (found.ready || found.trouble) break;
  } catch (error) {
    trouble(error.message);
    break;
  }
  await new Promise((done) => setTimeout(done, WAIT));
}
if ((await call("/api/job")).job?.what === "save") await finishSaving();
