// What all tabs share: requests with the page's token, words, bars, and what is dropped or pasted.

import { percentage } from "./answers.js";

const TOKEN = document.querySelector('meta[name="studio-token"]').content;
const COLOURS = 6; // of classes, in tokens.css
const SHOWN = 8000; // milliseconds that a line is told
const MOST_BARS = 8; // of more classes the likeliest five are shown

export const $ = (id) => document.getElementById(id);

let clearing = 0;

// Tells something in the line at the bottom, which is also read out; it goes away again.
export function say(text) {
  clearTimeout(clearing);
  $("status").textContent = text;
  clearing = setTimeout(() => $("status").replaceChildren(), SHOWN);
}

// Gets JSON, or posts a form or JSON; throws an Error whose message is for people.
export async function call(path, body) {
  const response = await send(path, body);
  return response.json();
}

export async function send(path, body) {
  const options = {};
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "x-studio-token": TOKEN };
    options.body = body instanceof FormData ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("No answer: the program has ended, or the file cannot be read any more.");
  }
  if (response.ok) return response;
  const found = await response.json().catch(() => ({}));
  throw new Error(found.error ?? `The program answered ${response.status}.`);
}

export function form(...files) {
  const result = new FormData();
  files.forEach((file) => result.append("photos", file, file.name ?? "photo.jpg"));
  return result;
}

// Makes an element; strings become text, never markup.
export function make(tag, values = {}, ...children) {
  const { className, ...attributes } = values;
  const result = document.createElement(tag);
  if (className) result.className = className;
  Object.entries(attributes).forEach(([name, value]) => result.setAttribute(name, value));
  result.append(...children);
  return result;
}

export const classColour = (number) => `var(--class-${(number % COLOURS) + 1})`;

// The colour of an answer: its class's, grey for neither, amber for unsure, red for none.
export function colourOf(answer, classes) {
  if (answer.error !== null) return "var(--wrong)";
  if (answer.label === "neither" || answer.label === "unsure") return `var(--${answer.label})`;
  return classColour(classes.indexOf(answer.label));
}

// Shows an answer: bars that are there already move.
export function showBars(list, answer, classes) {
  const all = Object.entries(answer.probabilities);
  const top = answer.top.map(({ label, probability }) => [label, probability]);
  const shown = all.length > MOST_BARS ? top : all;
  while (list.children.length > shown.length) list.lastElementChild.remove();
  while (list.children.length < shown.length) {
    list.append($("bar").content.firstElementChild.cloneNode(true));
  }
  shown.forEach(([name, probability], number) => {
    const bar = list.children[number];
    bar.querySelector(".class").textContent = name;
    bar.querySelector(".value").textContent = percentage(probability);
    const fill = bar.querySelector(".fill");
    fill.style.width = `${100 * probability}%`;
    fill.style.setProperty("--colour", classColour(classes.indexOf(name)));
  });
}

export function mark(element, answer, classes) {
  element.classList.toggle("neither", answer.label === "neither");
  element.classList.toggle("unsure", answer.label === "unsure");
  element.style.setProperty("--colour", colourOf(answer, classes));
}

// Calls `take(files, target)` for photos that are dropped anywhere, or pasted.
export function acceptFiles(take) {
  let depth = 0;
  const over = (change) => {
    depth = Math.max(depth + change, 0);
    document.body.classList.toggle("over", depth > 0);
  };
  window.addEventListener("dragenter", () => over(1));
  window.addEventListener("dragleave", () => over(-1));
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("over");
    const folders = [...event.dataTransfer.items]
      .map((item) => item.webkitGetAsEntry?.())
      .filter((entry) => entry?.isDirectory)
      .map((entry) => entry.name);
    const files = [...event.dataTransfer.files].filter((file) => !folders.includes(file.name));
    if (folders.length) say(`Not read: ${folders.join(", ")}. Drop the photos in it instead.`);
    if (files.length) take(files, event.target);
  });
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input, textarea")) return;
    if (event.clipboardData.files.length) take([...event.clipboardData.files], document.body);
    else say("There is no picture to paste.");
  });
}

// Shows a command that runs until it has ended; returns the job.
export async function follow(parts) {
  for (;;) {
    const { job } = await call("/api/job");
    if (job === null) return null;
    parts.box.hidden = false;
    parts.words.textContent = jobWords(job);
    if (parts.command) parts.command.textContent = job.command;
    parts.lines.textContent = job.lines.join("\n");
    parts.lines.scrollTop = parts.lines.scrollHeight;
    if (parts.stop) parts.stop.hidden = !job.running;
    if (!job.running) return job;
    await new Promise((done) => setTimeout(done, 500));
  }
}

function jobWords(job) {
  if (job.running) return "This command runs now:";
  return job.code === 0 ? "This command has ended well:" : `This command has failed (exit code ${job.code}):`;
}
