// A photo → probabilities and novelty, away from the page's thread, so that the page stays awake.

import { env, InferenceSession, Tensor } from "./runtime/ort.js";
import { evidence } from "./heat.js";
import { Resizer } from "./resize.js";

const STRIP = 1_000_000; // pixels on the canvas at a time: phones have no canvas for a large photo
const MOST_PIXELS = 64_000_000; // as app/data/decode.py
const MOST_THREADS = 4; // more wait for memory

let session;
let size;
let line = Promise.resolve(); // photos go one after the other

self.addEventListener("message", ({ data }) => {
  line = line.then(() => (data.kind === "load" ? load(data.about) : answer(data)));
});

// ---- the model -----------------------------------------------------------------------------------

async function load({ image_size, model, runtime }) {
  const total = model.bytes + runtime.bytes;
  let done = 0;
  const report = (bytes) => {
    done += bytes;
    self.postMessage({ kind: "progress", done, total });
  };
  try {
    size = image_size;
    checkCanvas();
    env.wasm.numThreads = self.crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
    env.wasm.wasmPaths = { mjs: new URL("runtime/ort-wasm.js", self.location.href).href };
    env.wasm.wasmBinary = (await download(runtime, report)).buffer;
    session = await InferenceSession.create(await download(model, report), {
      executionProviders: ["wasm"],
      logSeverityLevel: 3,
    });
    await run(new Uint8Array(3 * size * size)); // the first one is slower
    self.postMessage({ kind: "ready", threads: env.wasm.numThreads });
  } catch (error) {
    self.postMessage({ kind: "failed", error: error.message ?? String(error) });
  }
}

// Returns the bytes of a file whose size and SHA-256 are known. What was kept may be damaged: then
// the host is asked once more, past all caches.
async function download(entry, report) {
  const data = (await read(entry, "default", report)) ?? (await read(entry, "reload", () => {}));
  if (data) return data;
  throw new Error(`${entry.file} is not what was shared: load this page again`);
}

// Returns the bytes; null for others than those that were shared.
async function read({ file, bytes, sha256 }, cache, report) {
  const response = await fetch(file, { cache }).catch(() => null);
  if (!response?.ok) throw new Error(`${file} cannot be read: is there a network?`);
  const data = new Uint8Array(bytes);
  let end = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (end + part.value.length <= bytes) data.set(part.value, end);
    end += part.value.length;
    report(part.value.length);
  }
  return end === bytes && (await digest(data, sha256)) === sha256 ? data : null;
}

// Returns the SHA-256, or what was expected where the browser computes none: on a page without https.
async function digest(data, expected) {
  if (!self.crypto.subtle) return expected;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function run(pixels) {
  const image = new Tensor("uint8", pixels, [1, size, size, 3]);
  const { probabilities, novelty, activation_maps: maps } = await session.run({ image });
  const shares = [...probabilities.data];
  const likeliest = shares.indexOf(Math.max(...shares));
  return {
    probabilities: shares,
    novelty: novelty.data[0],
    evidence: [...evidence(maps.data, shares.length, likeliest)],
  };
}

// ---- a photo -------------------------------------------------------------------------------------

// Takes a file, or a frame of the camera.
async function answer({ id, picture }) {
  const started = performance.now();
  try {
    const pixels = await decode(picture);
    const decoded = performance.now();
    const found = await run(pixels);
    const milliseconds = { decode: decoded - started, network: performance.now() - decoded };
    self.postMessage({ kind: "answer", id, ...found, milliseconds });
  } catch (error) {
    self.postMessage({ kind: "answer", id, error: error.message ?? String(error) });
  }
}

async function decode(picture) {
  const bitmap = picture instanceof ImageBitmap ? picture : await opened(picture);
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) {
      throw new Error(`${width} × ${height} pixels are more than are read; make it smaller`);
    }
    const resizer = new Resizer(width, height, size);
    const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
    const canvas = new OffscreenCanvas(width, rows);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // what is transparent lies on white
    for (let top = 0; top < height; top += rows) {
      const strip = Math.min(rows, height - top);
      context.fillRect(0, 0, width, strip);
      context.drawImage(bitmap, 0, top, width, strip, 0, 0, width, strip);
      resizer.add(context.getImageData(0, 0, width, strip).data, top);
    }
    return resizer.result();
  } finally {
    bitmap.close();
  }
}

// Decodes a file: upright, by its EXIF, and in sRGB, by its colour profile.
async function opened(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error("this browser cannot read such a file; save it as JPEG or PNG");
  }
}

// Browsers that hide who uses them give other pixels than were drawn.
function checkCanvas() {
  const context = new OffscreenCanvas(4, 1).getContext("2d", { willReadFrequently: true });
  const colours = [30, 90, 150, 210];
  colours.forEach((value, x) => {
    context.fillStyle = `rgb(${value}, ${value}, ${value})`;
    context.fillRect(x, 0, 1, 1);
  });
  const { data } = context.getImageData(0, 0, 4, 1);
  if (colours.some((value, x) => Math.abs(value - data[4 * x]) > 8)) {
    throw new Error("this browser hides the pixels of photos from pages; allow it for this one");
  }
}
