// What speaks for an answer, as a picture: the photo in colour where it speaks for it, grey and dimmed
// where it does not, with a line around the strongest places. As app/inference/heatmap.py.

const LONGEST = 640; // pixels of the picture's longer side
const DIMMED = 0.45;
const EDGE = [230, 159, 0]; // Okabe and Ito's orange
const EDGE_AT = 0.5;
const EDGE_WIDTH = 2;

// Returns what each place says for a class against the mean of all, from maps (places, classes).
export function evidence(maps, classes, number) {
  return Float32Array.from({ length: maps.length / classes }, (_, place) => {
    const row = maps.subarray(place * classes, (place + 1) * classes);
    return row[number] - row.reduce((sum, value) => sum + value, 0) / classes;
  });
}

// Returns a PNG of a photo and the evidence of its places, which make a square.
export async function heatPicture(file, found) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  paint(image.data, stretched(found, width, height), width, height);
  context.putImageData(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve));
}

// Stretches the evidence over a picture, between its places in straight lines; 1 is the most, below 0
// becomes 0.
function stretched(found, width, height) {
  const side = Math.sqrt(found.length);
  const most = found.reduce((a, b) => Math.max(a, b), 0) || 1;
  const at = (place) => Math.min(Math.max(place, 0), side - 1);
  const share = (x, y) => Math.max(found[at(y) * side + at(x)] / most, 0);
  const result = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const v = ((y + 0.5) / height) * side - 0.5;
    const [top, down] = [Math.floor(v), v - Math.floor(v)];
    for (let x = 0; x < width; x += 1) {
      const u = ((x + 0.5) / width) * side - 0.5;
      const [left, right] = [Math.floor(u), u - Math.floor(u)];
      const above = share(left, top) * (1 - right) + share(left + 1, top) * right;
      const below = share(left, top + 1) * (1 - right) + share(left + 1, top + 1) * right;
      result[y * width + x] = above * (1 - down) + below * down;
    }
  }
  return result;
}

function paint(rgba, lit, width, height) {
  const inside = (x, y) => x < 0 || y < 0 || x >= width || y >= height || lit[y * width + x] > EDGE_AT;
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const [red, green, blue] = rgba.subarray(4 * i, 4 * i + 3);
      const grey = DIMMED * (0.299 * red + 0.587 * green + 0.114 * blue);
      const edge =
        lit[i] > EDGE_AT &&
        !(inside(x - EDGE_WIDTH, y) && inside(x + EDGE_WIDTH, y) &&
          inside(x, y - EDGE_WIDTH) && inside(x, y + EDGE_WIDTH));
      [red, green, blue].forEach((colour, c) => {
        rgba[4 * i + c] = edge ? EDGE[c] : grey + lit[i] * (colour - grey);
      });
    }
  }
}
