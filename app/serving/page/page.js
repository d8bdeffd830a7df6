// The page: photos in, answers in words out. It talks to its own service only, at addresses relative
// to the page's, so that a proxy may put it below a path. The service gives the words of an answer.

import { detail, percentage, summary } from "./answers.js";

const AT_ONCE = 8; // photos in a request, so that the first answers come soon
const FORM_BYTES = 1000; // that a form adds for each file, at most, the name not counted
const TRIES = 5; // where the service is busy

const $ = (id) => document.getElementById(id);

// What /v1/model says; until it does, what is sent is checked by the service alone.
let model = { classes: [], limits: { files: AT_ONCE, body_bytes: Infinity } };
let line = Promise.resolve(); // requests go one after the other
let generation = 0; // rises with each "Clear": what is under way then is not shown

// ---- words ---------------------------------------------------------------------------------------

function likeliest(answer) {
  return Object.entries(answer.probabilities).reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// ---- one photo -----------------------------------------------------------------------------------

class Card {
  constructor(file) {
    this.file = file;
    this.born = generation;
    this.element = $("photo").content.firstElementChild.cloneNode(true);
    this.urls = [];
    this.part("name").textContent = file.name;
  }

  part(name) {
    return this.element.querySelector(`.${name}`);
  }

  show(answer) {
    this.element.removeAttribute("aria-busy");
    this.verdict = answer.words ?? "no answer";
    this.part("verdict").textContent = this.verdict;
    if (answer.error !== null) {
      this.element.classList.add("error");
      this.part("trouble").textContent = answer.error;
      this.withoutPicture("no picture");
      return;
    }
    this.element.classList.toggle("neither", answer.label === "neither");
    this.element.classList.toggle("unsure", answer.label === "unsure");
    this.part("detail").textContent = detail(answer.label);
    this.part("detail").hidden = !detail(answer.label);
    this.part("bars").replaceChildren(...shown(answer).map(bar));
    // Only now: the service has looked whether the file could harm the one who decodes it.
    this.preview = this.url(this.file);
    this.picture(this.preview, `${this.file.name}, as it was sent`);
    this.offerHeat(likeliest(answer));
  }

  fail(message) {
    this.show({ error: message, words: null });
  }

  url(blob) {
    const url = URL.createObjectURL(blob);
    this.urls.push(url);
    return url;
  }

  picture(url, text) {
    const image = new Image();
    image.alt = text;
    image.decoding = "async";
    image.addEventListener("error", () =>
      this.withoutPicture("This browser cannot show such a file. It was read all the same."),
    );
    image.src = url;
    this.part("picture").replaceChildren(image);
  }

  withoutPicture(text) {
    const words = document.createElement("span");
    words.className = "no-picture";
    words.textContent = text;
    this.part("picture").replaceChildren(words);
  }

  offerHeat(name) {
    const button = this.part("heat");
    button.textContent = `Show what speaks for ${name}`;
    button.hidden = false;
    button.addEventListener("click", () => this.toggleHeat(button, name));
  }

  async toggleHeat(button, name) {
    const shown = button.getAttribute("aria-pressed") === "true";
    this.part("trouble").textContent = "";
    if (shown) {
      this.picture(this.preview, `${this.file.name}, as it was sent`);
    } else {
      if (this.map === undefined) {
        button.setAttribute("aria-busy", "true");
        try {
          const response = await ask("v1/explain", [this.file]);
          this.map = this.url(await response.blob());
        } catch (error) {
          this.part("trouble").textContent = error.message;
          return;
        } finally {
          button.removeAttribute("aria-busy");
        }
      }
      const text = `${this.file.name}: what speaks for ${name} is in colour`;
      this.picture(this.map, text);
      say(text);
    }
    button.setAttribute("aria-pressed", String(!shown));
  }

  forget() {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.element.remove();
  }
}

// In the order of the classes; of many the likeliest alone.
function shown(answer) {
  const all = Object.entries(answer.probabilities);
  const top = answer.top.map(({ label, probability }) => [label, probability]);
  return all.length > top.length ? top : all;
}

function bar([name, probability]) {
  const element = $("bar").content.firstElementChild.cloneNode(true);
  element.querySelector(".class").textContent = name;
  element.querySelector(".value").textContent = percentage(probability);
  element.querySelector(".fill").style.width = `${100 * probability}%`;
  return element;
}

// ---- the service ---------------------------------------------------------------------------------

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Returns a response that is an answer; throws an Error whose message is for people.
async function ask(path, files) {
  for (let tries = 1; ; tries += 1) {
    const form = new FormData();
    files.forEach((file) => form.append("photos", file, file.name));
    let response;
    try {
      response = await fetch(path, { method: "POST", body: form });
    } catch {
      throw new Error("No answer: the file cannot be read any more, or the service has ended.");
    }
    if (response.ok) return response;
    if (response.status === 429 && tries < TRIES) {
      say("The service is busy; waiting.");
      await pause(Number(response.headers.get("retry-after")) || 1);
      continue;
    }
    const body = await response.json().catch(() => ({}));
    throw new Error(body.error ?? `The service answered ${response.status}.`);
  }
}

async function answer(cards) {
  try {
    const response = await ask("v1/predict", cards.map((card) => card.file));
    const { answers } = await response.json();
    cards.forEach((card, number) => card.show(answers[number]));
  } catch (error) {
    cards.forEach((card) => card.fail(error.message));
  }
  if (cards[0].born === generation) say(summary(cards));
}

// ---- the page ------------------------------------------------------------------------------------

let cards = [];

function say(text) {
  $("status").textContent = text;
}

// Splits photos into requests that the service takes.
function* requests(waiting) {
  const most = Math.min(AT_ONCE, model.limits.files);
  let request = [];
  let size = 0;
  for (const card of waiting) {
    const more = card.file.size + FORM_BYTES + 4 * card.file.name.length;
    if (request.length && (request.length === most || size + more > model.limits.body_bytes)) {
      yield request;
      request = [];
      size = 0;
    }
    request.push(card);
    size += more;
  }
  if (request.length) yield request;
}

function add(files) {
  const fresh = [...files].map((file) => new Card(file));
  if (!fresh.length) return;
  cards.push(...fresh);
  $("list").prepend(...fresh.map((card) => card.element));
  $("answers").hidden = false;
  say(fresh.length === 1 ? `Looking at ${fresh[0].file.name}` : `Looking at ${fresh.length} photos`);
  const most = model.limits.body_bytes;
  const [fit, large] = [[], []];
  fresh.forEach((card) => (card.file.size + FORM_BYTES > most ? large : fit).push(card));
  large.forEach((card) =>
    card.fail(`too large: ${megabytes(card.file.size)}, at most ${megabytes(most)} are taken`),
  );
  if (!fit.length) say(summary(large));
  for (const request of requests(fit)) {
    line = line.then(() => (request[0].born === generation ? answer(request) : undefined));
  }
}

// Folders among what is dropped cannot be sent.
function dropped(transfer) {
  const folders = [...transfer.items]
    .map((item) => item.webkitGetAsEntry?.())
    .filter((entry) => entry?.isDirectory)
    .map((entry) => entry.name);
  add([...transfer.files].filter((file) => !folders.includes(file.name)));
  if (folders.length) say(`Not read: ${folders.join(", ")}. Folders cannot be dropped, only photos.`);
}

for (const id of ["choose", "take"]) {
  $(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
}

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
  else say("There is no picture to paste.");
});

// The whole window takes drops: a photo dropped beside the zone would replace the page otherwise.
let depth = 0;
window.addEventListener("dragenter", () => {
  depth += 1;
  $("zone").classList.add("over");
});
window.addEventListener("dragleave", () => {
  depth -= 1;
  if (!depth) $("zone").classList.remove("over");
});
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("zone").classList.remove("over");
  dropped(event.dataTransfer);
});

$("clear").addEventListener("click", () => {
  generation += 1;
  cards.forEach((card) => card.forget());
  cards = [];
  $("answers").hidden = true;
  say("Cleared.");
  $("choose").focus();
});

try {
  model = await (await fetch("v1/model")).json();
  const names = model.classes;
  $("knows").textContent = `It tells ${names.slice(0, -1).join(", ")} from ${names.at(-1)}, and says when it is none of these.`;
} catch {
  say("No answer: has the service ended?");
}
