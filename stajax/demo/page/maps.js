// The maps of a video: interpolated and smoothed in time as `stajax predict` does it, and drawn.

const REACH = 3; // standard deviations of the Gaussian to either side
const FINE = 160; // the side to which maps are interpolated before they are coloured

/** The maps of one view. */
export class MapTrack {
  /**
   * @param {Uint8Array} values the maps, row by row, one after the other
   * @param {number[]} times their times in seconds
   * @param {number} side their side
   * @param {number} rate maps a second
   */
  constructor(values, times, side, rate) {
    Object.assign(this, { values, times, side, rate, kept: new Map(), sigma: 0 });
  }

  /** Returns the map at a time in seconds, smoothed by a Gaussian of `sigma` seconds: a Float32Array, at most 1. */
  at(time, sigma) {
    if (sigma !== this.sigma) this.kept.clear();
    this.sigma = sigma;
    const last = this.times.length - 1;
    const after = this.times.findIndex((other) => other > time);
    if (after === 0) return this.smoothed(0);
    if (after < 0) return this.smoothed(last);
    const [begin, end] = [this.times[after - 1], this.times[after]];
    const weight = (time - begin) / (end - begin);
    const [first, second] = [this.smoothed(after - 1), this.smoothed(after)];
    return first.map((value, at) => (1 - weight) * value + weight * second[at]);
  }

  smoothed(index) {
    let found = this.kept.get(index);
    if (!found) {
      found = this.compute(index);
      if (this.kept.size > 7) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(index, found);
    }
    return found;
  }

  compute(index) {
    const size = this.side * this.side;
    const sigma = this.sigma * this.rate;
    const reach = Math.ceil(REACH * sigma);
    const sum = new Float32Array(size);
    const last = Math.min(index + reach, this.times.length - 1);
    for (let other = Math.max(index - reach, 0); other <= last; other += 1) {
      const weight = sigma ? Math.exp(-0.5 * ((other - index) / sigma) ** 2) : 1;
      const start = other * size;
      for (let at = 0; at < size; at += 1) sum[at] += weight * this.values[start + at];
    }
    const most = sum.reduce((a, b) => Math.max(a, b), 1e-9);
    return sum.map((value) => value / most);
  }
}

/** Draws maps into a canvas of their own, from which they are drawn over pictures of any size. */
export class Heat {
  /** @param {number[][]} colours red, green, blue and opacity, up to 255, of 256 levels */
  constructor(colours) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.canvas.height = FINE;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(FINE, FINE);
    this.pixels = new Uint32Array(this.image.data.buffer);
    const bytes = Uint8ClampedArray.from(colours.flat());
    this.colours = new Uint32Array(bytes.buffer);
    this.fine = new Float32Array(FINE * FINE);
  }

  /** Draws a map of some side. */
  draw(map, side) {
    // Bilinear, with the centres of pixels half a pixel from the edges.
    const places = Array.from({ length: FINE }, (_, at) => {
      const place = Math.min(Math.max(((at + 0.5) * side) / FINE - 0.5, 0), side - 1);
      const low = Math.min(Math.floor(place), side - 2);
      return [low, place - low];
    });
    for (let row = 0; row < FINE; row += 1) {
      const [top, down] = places[row];
      for (let column = 0; column < FINE; column += 1) {
        const [left, right] = places[column];
        const at = top * side + left;
        const upper = map[at] + right * (map[at + 1] - map[at]);
        const lower = map[at + side] + right * (map[at + side + 1] - map[at + side]);
        this.pixels[row * FINE + column] = this.colours[Math.round(255 * (upper + down * (lower - upper)))];
      }
    }
    this.context.putImageData(this.image, 0, 0);
  }

  /** Draws the last map over a whole canvas. */
  over(context, opacity) {
    context.save();
    context.globalAlpha = opacity;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.canvas, 0, 0, context.canvas.width, context.canvas.height);
    context.restore();
  }
}

/** Draws the scale of the colours into a canvas of 256 × 1 pixels. */
export function drawScale(canvas, colours) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  image.data.set(colours.flat());
  context.putImageData(image, 0, 0);
}
