// Keeps the whole page for use without a network, and adds the headers that a plain host leaves out:
// those with which browsers allow threads, and a content security policy for workers too.

importScripts("version.js"); // VERSION, and FILES to keep

const PLACE = self.registration.scope; // several such pages may share a host, and its caches
const CACHE = `${PLACE} ${VERSION}`;
const LARGE = /\.(onnx|wasm)$/; // kept when the page reads them, which shows how far it is
const HEADERS = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
  "content-security-policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; " +
    "style-src 'self'; img-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(answer(event, path));
});

async function install() {
  const cache = await caches.open(CACHE);
  const small = FILES.filter((file) => !LARGE.test(file));
  await cache.addAll(small.map((file) => new Request(file, { cache: "no-cache" })));
  await self.skipWaiting();
}

async function activate() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(`${PLACE} `) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

// Returns which of the files is asked for; null for what is not this page's.
function pathOf({ method, url }) {
  const address = url.split(/[?#]/)[0];
  if (method !== "GET" || !address.startsWith(PLACE)) return null;
  const path = decodeURI(address.slice(PLACE.length)).replace(/^index\.html$/, "") || "./";
  return FILES.includes(path) ? path : null;
}

async function answer(event, path) {
  const cache = await caches.open(CACHE);
  // Asked by a script: what is kept was damaged. A page that is loaded anew asks so for all its files.
  const { cache: mode, destination } = event.request;
  const anew = mode === "reload" && destination === "";
  const kept = anew ? undefined : await cache.match(path);
  if (kept) return guarded(kept);
  const response = await fetch(path, { cache: anew ? "reload" : "no-cache" });
  if (response.status === 200) event.waitUntil(cache.put(path, response.clone()).catch(() => {}));
  return guarded(response);
}

function guarded({ body, status, statusText, headers }) {
  const all = new Headers(headers);
  Object.entries(HEADERS).forEach(([name, value]) => all.set(name, value));
  return new Response(body, { status, statusText, headers: all });
}
