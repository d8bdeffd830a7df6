// Pillow's resize with its bilinear filter, repeated to the last bit: what app/data/decode.py does to
// a decoded photo. Weights and sums are whole numbers there, so they can be the same here.
//
// Source: Pillow 13, src/libImaging/Resample.c (ImagingResample for 8 bits a channel).

const BITS = 22; // of a weight: 32, less 8 for the pixel and 2 for what overshoots
const HALF = 1 << (BITS - 1);

// For each of `outputs` places the first input, the number of inputs, and their weights, at most `most`.
// Weights are positive and add up to 1, so that sums stay below 2 ** 31 and results below 256.
function weights(inputs, outputs) {
  const scale = inputs / outputs;
  const reach = Math.max(scale, 1); // a larger picture is averaged, a smaller one interpolated
  const most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(outputs);
  const count = new Int32Array(outputs);
  const values = new Int32Array(outputs * most);
  const exact = new Float64Array(most);
  for (let place = 0; place < outputs; place += 1) {
    const centre = (place + 0.5) * scale;
    const low = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const number = Math.min(Math.trunc(centre + reach + 0.5), inputs) - low;
    let sum = 0;
    for (let i = 0; i < number; i += 1) {
      exact[i] = Math.max(1 - Math.abs((i + low - centre + 0.5) * (1 / reach)), 0);
      sum += exact[i];
    }
    for (let i = 0; i < number; i += 1) {
      values[place * most + i] = Math.trunc(0.5 + (exact[i] / sum) * (1 << BITS));
    }
    first[place] = low;
    count[place] = number;
  }
  return { first, count, values, most };
}

// Squeezes a picture into a square. It comes in strips from the top, since a browser may hold no
// canvas as large as a photo.
export class Resizer {
  constructor(width, height, size) {
    Object.assign(this, { width, height, size });
    this.across = weights(width, size);
    this.down = weights(height, size);
    // What shrinks more in height is made lower first, all else narrower first. The order is Pillow's:
    // in between, colours are rounded.
    this.lowerFirst = height > size && height - size > 2 * (width - size);
    this.between = this.lowerFirst
      ? new Int32Array(size * width * 3).fill(HALF)
      : new Uint8Array(height * size * 3);
  }

  // Takes rows of RGBA, all opaque, of which the first one is row `top` of the picture.
  add(rgba, top) {
    if (this.lowerFirst) this.addLower(rgba, top);
    else this.narrow(rgba, 4, this.between, top);
  }

  // Returns (size, size, 3), RGB.
  result() {
    const { size, width, between } = this;
    const pixels = new Uint8Array(size * size * 3);
    if (this.lowerFirst) {
      const low = new Uint8Array(size * width * 3);
      for (let i = 0; i < low.length; i += 1) low[i] = between[i] >> BITS;
      this.narrow(low, 3, pixels, 0);
      return pixels;
    }
    const { first, count, values, most } = this.down;
    const wide = 3 * size;
    for (let y = 0; y < size; y += 1) {
      for (let x = 0; x < wide; x += 1) {
        let sum = HALF;
        for (let i = 0; i < count[y]; i += 1) {
          sum += values[y * most + i] * between[(first[y] + i) * wide + x];
        }
        pixels[y * wide + x] = sum >> BITS;
      }
    }
    return pixels;
  }

  // Makes rows of so many channels `size` pixels wide; the first one becomes row `top` of `target`.
  narrow(source, channels, target, top) {
    const { first, count, values, most } = this.across;
    const { width, size } = this;
    const rows = source.length / (channels * width);
    let to = top * size * 3;
    for (let row = 0; row < rows; row += 1) {
      for (let x = 0; x < size; x += 1, to += 3) {
        let from = channels * (width * row + first[x]);
        const end = x * most + count[x];
        let red = HALF;
        let green = HALF;
        let blue = HALF;
        for (let k = x * most; k < end; k += 1, from += channels) {
          const weight = values[k];
          red += weight * source[from];
          green += weight * source[from + 1];
          blue += weight * source[from + 2];
        }
        target[to] = red >> BITS;
        target[to + 1] = green >> BITS;
        target[to + 2] = blue >> BITS;
      }
    }
  }

  // Adds each row to the rows of the result that it is part of.
  addLower(rgba, top) {
    const { first, count, values, most } = this.down;
    const { width, size, between } = this;
    const rows = rgba.length / (4 * width);
    for (let y = 0; y < size; y += 1) {
      const end = Math.min(first[y] + count[y], top + rows);
      for (let row = Math.max(first[y], top); row < end; row += 1) {
        const weight = values[y * most + row - first[y]];
        let to = y * width * 3;
        const stop = to + width * 3;
        for (let from = (row - top) * width * 4; to < stop; from += 4, to += 3) {
          between[to] += weight * rgba[from];
          between[to + 1] += weight * rgba[from + 1];
          between[to + 2] += weight * rgba[from + 2];
        }
      }
    }
  }
}
