// What speaks for an answer, laid over a photo: orange places for it, blue ones against it. The page
// has a button `why`, and beside the photo what evidence.html.j2 holds.

import { $, say } from "./common.js";

// Photos are objects with `ratio`, [width, height], and room for `evidence`, once it was asked for.
export class Evidence {
  #ask;
  #photo = null;
  #on = false;
  #line = Promise.resolve();

  // `ask(photo)` returns what the program says; its `grid` and `label` are shown here.
  constructor(ask) {
    this.#ask = ask;
    $("evidence").addEventListener("input", () => this.#slide());
  }

  // What is shown at this moment; null where nothing is.
  get shown() {
    return $("overlay").hidden ? null : this.#photo.evidence;
  }

  async toggle() {
    this.#on = !this.#on;
    await this.show(this.#photo);
    if (this.shown) say(`Orange places speak for ${this.shown.label}, blue ones against it.`);
  }

  // Takes the next photo, with its evidence where that is wanted; null for one that has none.
  async show(photo) {
    this.leave();
    this.#photo = photo;
    $("why").disabled = photo === null;
    // One request at a time: who goes on to the next photo meanwhile never asks about this one.
    await this.#line;
    if (this.#wanted(photo) && !photo.evidence) {
      this.#line = this.#fetch(photo);
      await this.#line;
    }
    if (!this.#wanted(photo) || !photo.evidence) return;
    for (const id of ["overlay", "slider", "legend"]) $(id).hidden = false;
    draw(photo);
    const { label } = photo.evidence;
    $("legend").querySelector(".for").textContent = `speaks for ${label}`;
    $("legend").querySelector(".against").textContent = `speaks against ${label}`;
    this.#slide();
  }

  // Shows nothing until the next photo comes.
  leave() {
    this.#photo = null;
    for (const id of ["overlay", "slider", "legend"]) $(id).hidden = true;
    $("why").setAttribute("aria-pressed", String(this.#on));
    this.#slide();
  }

  #wanted(photo) {
    return this.#on && photo !== null && photo === this.#photo;
  }

  async #fetch(photo) {
    $("why").setAttribute("aria-busy", "true");
    try {
      photo.evidence = await this.#ask(photo);
    } catch (error) {
      $("trouble").textContent = error.message;
      this.#on = false;
      $("why").setAttribute("aria-pressed", "false");
    } finally {
      $("why").removeAttribute("aria-busy");
    }
  }

  #slide() {
    const share = $("overlay").hidden ? 0 : $("evidence").value / 100;
    $("stage").style.setProperty("--shown", share);
  }
}

// Gives the photo and what lies over it the same shape.
export function shape([width, height]) {
  for (const element of [$("photo"), $("overlay")]) {
    element.style.setProperty("--ratio", `${width} / ${height}`);
    element.style.setProperty("--ratio-number", width / height);
  }
}

// What says nothing stays clear.
function draw({ evidence: { grid }, ratio: [width, height] }) {
  const style = getComputedStyle(document.documentElement);
  const colours = ["--for", "--against"].map((name) => {
    const text = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [grid[0].length, grid.length];
  const image = new ImageData(small.width, small.height);
  grid.flat().forEach((value, number) => {
    image.data.set([...colours[value < 0 ? 1 : 0], 255 * Math.abs(value)], 4 * number);
  });
  small.getContext("2d").putImageData(image, 0, 0);
  const canvas = $("overlay");
  const scale = 800 / Math.max(width, height);
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}
