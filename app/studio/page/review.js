// The tab Review: one photo at a time or a grid, a key for each decision, which is on disk at once.
// A key shows the next photo without waiting; the decision is written meanwhile, in order.

import { percentage } from "./answers.js";
import { $, call, classColour, follow, make, say } from "./common.js";
import { Evidence, shape } from "./evidence.js";

const PAGE = 60; // photos of the grid at once
const AHEAD = 3; // photos that are loaded before they are needed
const DIGITS = 9; // classes that have a key
const WORDS = {
  right: "the label is right",
  leave_out: "left out",
  neither: "none of the classes",
  skip: "skipped",
};

let review = { key: null, run: null, classes: [], kinds: {}, photos: [], file: "" };
let shown = []; // numbers of the photos of the chosen kind
let place = 0; // in `shown`
let inGrid = false;
let line = Promise.resolve(); // decisions are sent one after the other
let waiting = 0;
let unwritten = null; // the photo whose decision could not be written last
const pictures = new Map(); // number → image that is loaded ahead

// ---- decisions -----------------------------------------------------------------------------------

function choices() {
  const classes = review.classes.map((name, number) => ({
    key: number < DIGITS ? String(number + 1) : "",
    decision: "class",
    label: name,
    words: name,
    colour: classColour(number),
  }));
  return [
    { key: "r", decision: "right", label: "", words: "Right", colour: "var(--right)" },
    ...classes,
    { key: "n", decision: "neither", label: "", words: "Neither", colour: "var(--neither)" },
    { key: "x", decision: "leave_out", label: "", words: "Leave out", colour: "var(--wrong)" },
    { key: "s", decision: "skip", label: "", words: "Skip", colour: "var(--line)" },
  ];
}

const current = () => review.photos[shown[place]];

function decide({ decision, label }) {
  if (!shown.length) return;
  const number = shown[place];
  const photo = review.photos[number];
  const before = [photo.decision, photo.decided_label];
  // Who presses the key of the class that the folder says means that the label is right.
  const meant = decision === "class" && label === photo.label ? "right" : decision;
  const values = { review: review.key, number, decision: meant };
  if (meant === "class") values.class_number = review.classes.indexOf(label);
  [photo.decision, photo.decided_label] = [meant, meant === "class" ? label : ""];
  const made = `${photo.name}: ${standing(photo)}`;
  if (place < shown.length - 1) place += 1;
  show();
  say(current() === photo ? made : `${made}. Next: ${current().name}. ${question(current())}`);
  send("/api/review/decide", values, made, () => {
    [photo.decision, photo.decided_label] = before;
    unwritten = photo;
  }).then((found) => {
    if (found === null || unwritten !== photo) return;
    unwritten = null;
    $("trouble").textContent = "";
  });
}

function send(path, values, what, restore) {
  waiting += 1;
  line = line.then(async () => {
    try {
      return await call(path, values);
    } catch (error) {
      restore();
      $("trouble").textContent = `Not written: ${what}. ${error.message}`;
      show();
      return null;
    } finally {
      waiting -= 1;
    }
  });
  return line;
}

async function undo() {
  const found = await send("/api/review/undo", { review: review.key }, "undo", () => {});
  if (found === null) return;
  if (found.undone === null) {
    say("There is nothing to undo.");
    return;
  }
  const { number, name, decision, decided_label: label } = found.undone;
  if (number !== null) {
    [review.photos[number].decision, review.photos[number].decided_label] = [decision, label];
    if (!shown.includes(number)) choose("all");
    place = shown.indexOf(number);
  }
  say(`Undone: ${name}`);
  show();
}

function standing(photo) {
  if (photo.decision === null) return "not decided";
  return photo.decision === "class" ? `it shows ${photo.decided_label}` : WORDS[photo.decision];
}

// Of models that did not learn from the photo, unlike the run's own.
const opinion = ({ likeliest, probability }) =>
  `A model that never saw it says ${likeliest} (${percentage(probability)}).`;

// Keeps a percent sign on the line of its number.
const unbroken = (text) => text.replaceAll(" %", "\u00a0%");

const question = (photo) => (photo.label ? `Is this ${photo.label}?` : "What does this show?");

// ---- one photo -----------------------------------------------------------------------------------

function show() {
  const decided = shown.filter((number) => review.photos[number].decision !== null).length;
  $("done").max = Math.max(shown.length, 1);
  $("done").value = decided;
  $("done-words").textContent = `${decided} of ${shown.length} photos are decided.`;
  $("nothing").hidden = shown.length > 0;
  $("one").hidden = inGrid || !shown.length;
  $("many").hidden = !inGrid || !shown.length;
  $("view").setAttribute("aria-pressed", String(inGrid));
  if (!shown.length) return;
  if (inGrid) showGrid();
  else showOne();
}

function showOne() {
  const photo = current();
  $("name").textContent = photo.name;
  const split = photo.split ? `, ${photo.split}` : ", not used";
  $("question").textContent = question(photo);
  $("reasons").replaceChildren(...photo.reasons.map((text) => make("li", {}, unbroken(text))));
  $("model").textContent =
    photo.probability === null
      ? `Photo ${place + 1} of ${shown.length}${split}.`
      : `Photo ${place + 1} of ${shown.length}${split}. ${unbroken(opinion(photo))}`;
  $("like").textContent = photo.like.length ? `Nearly the same: ${photo.like.slice(0, 5).join(", ")}` : "";
  const test = photo.split === "test" ? " Labels of test photos are marked, and both scores are given." : "";
  $("stands").textContent = `Decision: ${standing(photo)}.${test}`;
  const number = review.classes.indexOf(photo.label);
  $("answer").style.setProperty("--colour", number < 0 ? "var(--line)" : classColour(number));
  for (const button of $("keys").children) {
    const { decision, label } = button.dataset;
    const same = photo.decision === decision && photo.decided_label === label;
    button.setAttribute("aria-pressed", String(same));
    button.hidden = decision === "right" && !photo.label;
  }
  $("back").disabled = place === 0;
  $("next").disabled = place === shown.length - 1;
  evidence.leave();
  $("why-words").textContent = "";
  showPicture(shown[place]);
  for (const ahead of shown.slice(place + 1, place + 1 + AHEAD)) picture(ahead);
}

function picture(number) {
  if (!pictures.has(number)) {
    const image = new Image();
    image.src = `/api/review/photo/${number}?review=${review.key}`;
    pictures.set(number, image);
    if (pictures.size > 4 * AHEAD) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(number);
}

async function showPicture(number) {
  const image = picture(number);
  if (!image.complete) {
    $("photo").hidden = true;
    $("empty").hidden = false;
    $("empty").textContent = "…";
  }
  const fine = await image.decode().then(
    () => true,
    () => false,
  );
  if (shown[place] !== number || inGrid) return;
  $("photo").hidden = !fine;
  $("empty").hidden = fine;
  $("empty").textContent = "No picture: the file is gone, was changed, or cannot be read.";
  const photo = review.photos[number];
  if (fine) {
    $("photo").src = image.src;
    $("photo").alt = `${photo.name}, the photo that is reviewed`;
    photo.ratio = [image.naturalWidth, image.naturalHeight];
    shape(photo.ratio);
  }
  await evidence.show(fine ? photo : null);
  showWhy();
}

// ---- why -----------------------------------------------------------------------------------------

const evidence = new Evidence((photo) =>
  call("/api/review/why", { review: review.key, number: review.photos.indexOf(photo) }),
);

async function why() {
  if ($("one").hidden) return;
  await evidence.toggle();
  showWhy();
}

// The run's own model: unlike the one whose opinion put the photo here, it may have learned from it.
function showWhy() {
  $("why-words").textContent = evidence.shown ? whyWords(current(), evidence.shown.words) : "";
}

function whyWords(photo, words) {
  if (photo.split === "train") return `The run's own model, which learned from this photo, says: ${words}.`;
  return `The run's own model says: ${words}.`;
}

// ---- the grid ------------------------------------------------------------------------------------

function showGrid() {
  const first = place - (place % PAGE);
  const numbers = shown.slice(first, first + PAGE);
  const there = [...$("grid").children].map((each) => Number(each.dataset.number));
  if (there.join() !== numbers.join()) {
    $("grid").replaceChildren(...numbers.map((number) => tile(number)));
  }
  [...$("grid").children].forEach((element, at) => {
    const photo = review.photos[numbers[at]];
    const button = element.firstElementChild;
    button.toggleAttribute("aria-current", first + at === place);
    if (first + at === place) element.scrollIntoView({ block: "nearest" });
    button.style.setProperty("--colour", colourOfDecision(photo));
    button.querySelector(".words").textContent = `${photo.label}: ${standing(photo)}`;
  });
  $("page-words").textContent = `${first + 1} to ${first + numbers.length} of ${shown.length}`;
  $("page-back").disabled = first === 0;
  $("page-next").disabled = first + PAGE >= shown.length;
}

function tile(number) {
  const photo = review.photos[number];
  const image = make("img", {
    src: `/api/review/photo/${number}?size=small&review=${review.key}`,
    alt: "",
    loading: "lazy",
  });
  image.addEventListener("error", () =>
    image.replaceWith(make("span", { className: "gone" }, "no picture")),
  );
  const button = make("button", { type: "button", title: photo.reasons.join("; ") }, image);
  button.append(make("span", { className: "unseen" }, photo.name), make("span", { className: "words" }));
  button.addEventListener("click", () => {
    place = shown.indexOf(number);
    inGrid = false;
    show();
    $("name").scrollIntoView({ block: "nearest" });
  });
  return make("li", { "data-number": number }, button);
}

function colourOfDecision(photo) {
  if (photo.decision === "class") return classColour(review.classes.indexOf(photo.decided_label));
  const colours = { right: "--right", leave_out: "--wrong", neither: "--neither" };
  return `var(${colours[photo.decision] ?? "--line"})`;
}

// ---- the page ------------------------------------------------------------------------------------

function move(by) {
  place = Math.min(Math.max(place + by, 0), shown.length - 1);
  show();
}

function toggle() {
  inGrid = !inGrid;
  show();
}

function choose(kind) {
  $("kind").value = kind;
  const all = review.photos.map((_, number) => number);
  shown = kind === "all" ? all : all.filter((number) => review.photos[number].kinds.includes(kind));
  const first = shown.findIndex((number) => review.photos[number].decision === null);
  place = Math.max(first, 0);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !review.run) return;
  if (event.target.matches("input, select, textarea")) return;
  const actions = { u: undo, ArrowLeft: () => move(-1), ArrowRight: () => move(1), g: toggle, w: why };
  const choice = choices().find(({ key }) => key === event.key);
  if (!choice && !actions[event.key]) return;
  event.preventDefault();
  if (choice?.decision === "right" && !current()?.label) return; // there is no label
  if (choice) decide(choice);
  else actions[event.key]();
});

$("back").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("undo").addEventListener("click", undo);
$("view").addEventListener("click", toggle);
$("why").addEventListener("click", why);
$("page-back").addEventListener("click", () => move(-PAGE));
$("page-next").addEventListener("click", () => move(PAGE));
$("kind").addEventListener("change", () => {
  choose($("kind").value);
  show();
});
$("run").addEventListener("change", () => open($("run").value));
$("unlabelled").addEventListener("submit", (event) => {
  event.preventDefault();
  open($("run").value, $("folder").value.trim());
});
window.addEventListener("beforeunload", (event) => {
  if (waiting) event.preventDefault(); // a decision is not written yet
});

function choiceButton({ key, decision, label, words, colour }) {
  const button = make("button", { type: "button", "aria-pressed": "false" }, make("span", {}, words));
  if (key) button.append(make("kbd", {}, key));
  Object.assign(button.dataset, { decision, label });
  button.style.setProperty("--colour", colour);
  button.addEventListener("click", () => decide({ decision, label }));
  return button;
}

// Lists are opened one after the other, when all decisions about the one before are written.
function open(name, unlabelled = "") {
  line = line.then(() => opened(name, unlabelled));
  return line;
}

async function opened(name, unlabelled) {
  $("trouble").textContent = "";
  pictures.clear();
  $("grid").replaceChildren();
  if (unlabelled) say("Looking at the photos…");
  try {
    review = await call("/api/review", { name, unlabelled });
    if (unlabelled) say(`${review.photos.length} photos are queued.`);
  } catch (error) {
    review = { ...review, run: null, photos: [] };
    $("trouble").textContent = error.message;
  }
  const counts = (kind) => review.photos.filter(({ kinds }) => kinds.includes(kind)).length;
  const option = (value, words, count) => make("option", { value }, `${words} (${count})`);
  $("kind").replaceChildren(
    option("all", "all photos worth a look", review.photos.length),
    ...Object.entries(review.kinds)
      .filter(([kind]) => counts(kind))
      .map(([kind, words]) => option(kind, words, counts(kind))),
  );
  $("keys").replaceChildren(...choices().map(choiceButton));
  $("file").textContent = review.file;
  $("folder").value ||= review.unlabelled ?? "";
  $("new").value = `${name}-corrected`;
  choose("all");
  show();
}

// Starts a command when all decisions are written, and shows it to its end.
async function start(path, values) {
  $("trouble").textContent = "";
  await line;
  try {
    await call(path, values);
    await finish();
  } catch (error) {
    $("trouble").textContent = error.message;
  }
}

$("train").addEventListener("submit", (event) => {
  event.preventDefault();
  start("/api/review/train", { review: review.key, new: $("new").value.trim() });
});

$("preview").addEventListener("click", () => start("/api/review/preview", { review: review.key }));

$("job-stop").addEventListener("click", () => call("/api/job/stop", {}));

async function finish() {
  const job = await follow({
    box: $("job"),
    words: $("job-words"),
    command: $("job-command"),
    lines: $("job-lines"),
    stop: $("job-stop"),
  });
  if (job?.code !== 0) return;
  if (job.what === "preview") say(job.lines.at(-1) ?? "");
  if (job.what !== "review") return;
  const names = [...$("run").options].map(({ value }) => value);
  if (!names.includes(job.result)) $("run").prepend(make("option", { value: job.result }, job.result));
  say(`The run ${job.result} is ready. Its report says what the corrections changed.`);
}

try {
  const state = await call("/api/state");
  $("run").replaceChildren(...state.runs.map((name) => make("option", { value: name }, name)));
  if (state.current) {
    $("run").value = state.current;
    await open(state.current);
  } else {
    $("trouble").textContent = "There is no finished run to review yet.";
  }
  document.body.dataset.ready = "yes";
  if ((await call("/api/job")).job?.running) await finish();
} catch (error) {
  $("trouble").textContent = error.message;
}
