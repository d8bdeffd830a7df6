// The page: photos in, answers in words out, computed on the device. Nothing is sent: a worker runs
// the classifier (worker.js), and a service worker keeps the page for use without a network (sw.js).

import { detail, percentage, summary } from "./answers.js";
import { heatPicture } from "./heat.js";
import { decide, inWords, shown } from "./words.js";

const SOON = 3000; // milliseconds within which a service worker takes over, or a page is loaded again

const $ = (id) => document.getElementById(id);
const say = (text) => ($("status").textContent = text);
const megabytes = (bytes) => Math.round(bytes / 1e6);

let about; // share.json
let worker;
let cards = [];
let number = 0; // of the last question
const waiting = new Map(); // number → what takes the answer

// Scripts may be started by these names only, whatever the page is made to say.
const own = (name) => {
  if (!["worker.js", "sw.js"].includes(name)) throw new TypeError(name);
  return name;
};
const files = self.trustedTypes?.createPolicy("own-files", { createScriptURL: own });
const script = (name) => files?.createScriptURL(name) ?? own(name);

// ---- start ---------------------------------------------------------------------------------------

// Starts the service worker. On a first visit its headers come too late for this page, which is then
// loaded once more: before the classifier, so that this costs next to nothing.
async function keep() {
  const { serviceWorker } = navigator; // none without https, but on localhost
  if (!serviceWorker) return;
  try {
    await serviceWorker.register(script("sw.js"), { updateViaCache: "none" });
    if (self.crossOriginIsolated) return;
    if (!serviceWorker.controller) {
      await new Promise((resolve) => {
        serviceWorker.addEventListener("controllerchange", resolve, { once: true });
        setTimeout(resolve, SOON);
      });
    }
    if (serviceWorker.controller && !sessionStorage.getItem("again")) {
      sessionStorage.setItem("again", "yes");
      location.reload();
      await new Promise((resolve) => setTimeout(resolve, SOON)); // this page ends in between
    }
  } catch {
    // Without it the page works all the same, more slowly, and not offline.
  }
}

async function start() {
  await keep();
  const response = await fetch("share.json").catch(() => null);
  if (!response?.ok) throw new Error("share.json cannot be read: is there a network?");
  about = await response.json();
  const names = about.classes;
  $("knows").textContent =
    `It tells ${names.slice(0, -1).join(", ")} from ${names.at(-1)}, and says when it is none of these.`;
  $("sentences").replaceChildren(...about.quality.map((text) => element("li", text)));
  $("quality").hidden = !about.quality.length;
  worker = new Worker(script("worker.js"), { type: "module" });
  worker.addEventListener("message", ({ data }) => take(data));
  worker.addEventListener("error", () => fail("this browser cannot run it; a newer one may"));
  worker.postMessage({ kind: "load", about });
}

function take(data) {
  if (data.kind === "progress") {
    const { done, total } = data;
    Object.assign($("progress"), { hidden: false, max: total, value: done });
    say(`Loading: ${megabytes(done)} of ${megabytes(total)} MB`);
  } else if (data.kind === "ready") {
    ready(data.threads);
  } else if (data.kind === "failed") {
    fail(data.error);
  } else {
    const answered = waiting.get(data.id);
    waiting.delete(data.id);
    answered(data);
  }
}

function ready(threads) {
  $("progress").hidden = true;
  $("zone").hidden = false;
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("speed").textContent = threads === 1 ? "one thread" : `${threads} threads`;
  say("Ready.");
  tellKept();
}

// Says so once the service worker has the whole page.
async function tellKept(tries = 20) {
  if (!navigator.serviceWorker?.controller || !self.caches) return;
  if (await caches.match(about.model.file)) {
    $("kept").textContent = "It works without a network from now on.";
  } else if (tries) {
    setTimeout(() => tellKept(tries - 1), 250);
  }
}

function fail(reason) {
  $("progress").hidden = true;
  say(`It cannot answer: ${reason}.`);
  $("status").classList.add("wrong");
  waiting.forEach((answered) => answered({ error: reason }));
  waiting.clear();
}

// Takes a file, or a frame of the camera; returns what the worker says of it.
function ask(picture) {
  number += 1;
  const id = number;
  const transfer = picture instanceof ImageBitmap ? [picture] : [];
  worker.postMessage({ kind: "ask", id, picture }, transfer);
  return new Promise((resolve) => waiting.set(id, resolve));
}

// ---- answers -------------------------------------------------------------------------------------

function element(name, text) {
  const result = document.createElement(name);
  result.textContent = text;
  return result;
}

// Fills the verdict, the detail and the bars of a photo; returns the verdict.
function show(place, { probabilities, novelty }) {
  const { classes, thresholds } = about;
  const label = decide(classes, probabilities, novelty, thresholds);
  const words = inWords(label, classes, probabilities);
  const part = (name) => place.querySelector(`.${name}`);
  place.classList.toggle("neither", label === "neither");
  place.classList.toggle("unsure", label === "unsure");
  part("verdict").textContent = words;
  part("detail").textContent = detail(label);
  part("detail").hidden = !detail(label);
  const bars = shown(probabilities).map((each) => bar(classes[each], probabilities[each]));
  part("bars").replaceChildren(...bars);
  return words;
}

function bar(name, probability) {
  const result = $("bar").content.firstElementChild.cloneNode(true);
  result.querySelector(".class").textContent = name;
  result.querySelector(".value").textContent = percentage(probability);
  result.querySelector(".fill").style.width = `${100 * probability}%`;
  return result;
}

class Card {
  constructor(file) {
    this.file = file;
    this.element = $("photo").content.firstElementChild.cloneNode(true);
    this.part("name").textContent = file.name;
  }

  part(name) {
    return this.element.querySelector(`.${name}`);
  }

  async answer() {
    const found = await ask(this.file);
    this.element.removeAttribute("aria-busy");
    if (found.error !== undefined) {
      this.element.classList.add("error");
      this.part("verdict").textContent = this.verdict = "no answer";
      this.part("trouble").textContent = found.error;
      this.part("picture").replaceChildren(element("span", "no picture"));
      this.part("picture").firstElementChild.className = "no-picture";
      return;
    }
    this.verdict = show(this.element, found);
    this.element.dataset.answer = JSON.stringify(found); // for whoever wants every digit
    this.photo = URL.createObjectURL(this.file);
    this.picture(this.photo, this.file.name);
    this.offerHeat(found);
  }

  picture(url, text) {
    const image = new Image();
    image.alt = text;
    image.decoding = "async";
    image.src = url;
    this.part("picture").replaceChildren(image);
  }

  offerHeat({ probabilities, evidence }) {
    const name = about.classes[probabilities.indexOf(Math.max(...probabilities))];
    const button = this.part("heat");
    button.textContent = `Show what speaks for ${name}`;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      if (!on) {
        this.picture(this.photo, this.file.name);
        return;
      }
      this.heat ??= URL.createObjectURL(await heatPicture(this.file, evidence));
      const text = `${this.file.name}: what speaks for ${name} is in colour`;
      this.picture(this.heat, text);
      say(text);
    });
  }

  forget() {
    [this.photo, this.heat].forEach((url) => url && URL.revokeObjectURL(url));
    this.element.remove();
  }
}

async function add(list) {
  const fresh = [...list].map((file) => new Card(file));
  if (!fresh.length || $("zone").hidden) return;
  cards.push(...fresh);
  $("list").prepend(...fresh.map((card) => card.element));
  $("answers").hidden = false;
  say(fresh.length === 1 ? `Looking at ${fresh[0].file.name}` : `Looking at ${fresh.length} photos`);
  await Promise.all(fresh.map((card) => card.answer()));
  if (fresh.every((card) => cards.includes(card))) say(summary(fresh));
}

// ---- the camera ----------------------------------------------------------------------------------

let stream = null;

// One frame at a time: those that come while the classifier is busy are not looked at.
async function watch() {
  const seen = stream;
  while (stream === seen) {
    // Before the first frame there is no picture yet.
    const frame = document.hidden ? null : await createImageBitmap($("video")).catch(() => null);
    const found = frame && (await ask(frame));
    if (found?.probabilities && stream === seen) show($("live").querySelector(".photo"), found);
    if (!frame) await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function camera() {
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
  } else {
    $("camera").disabled = true; // a second click would start a second one, which nothing stops
    try {
      const video = { facingMode: "environment" }; // of a phone, the one at its back
      stream = await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      say(`No camera: ${error.message}`);
      return;
    } finally {
      $("camera").disabled = false;
    }
    $("video").srcObject = stream;
    watch();
  }
  $("live").hidden = !stream;
  $("camera").textContent = stream ? "Stop the camera" : "Camera";
}

// ---- the page ------------------------------------------------------------------------------------

$("choose").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
$("camera").addEventListener("click", camera);
document.addEventListener("paste", (event) => add(event.clipboardData.files));

// The whole window takes drops: a photo dropped beside the zone would replace the page otherwise.
let depth = 0;
const over = (change) => {
  depth = change === 0 ? 0 : depth + change;
  $("zone").classList.toggle("over", depth > 0);
};
window.addEventListener("dragenter", () => over(1));
window.addEventListener("dragleave", () => over(-1));
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  over(0);
  add(event.dataTransfer.files);
});

$("clear").addEventListener("click", () => {
  cards.forEach((card) => card.forget());
  cards = [];
  $("answers").hidden = true;
  say("Cleared.");
  $("choose").focus();
});

start().catch((error) => fail(error.message));
