// A line of a number over the time of the video, in which one can seek.

const STEPS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1];

const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)}\u00a0%`;

export class Chart {
  /**
   * @param {HTMLElement} figure
   * @param {(time: number) => void} seek
   */
  constructor(figure, seek) {
    this.plot = figure.querySelector(".plot");
    this.svg = figure.querySelector("svg");
    this.head = figure.querySelector("i");
    this.output = figure.querySelector("output");
    this.most = figure.querySelector(".most");
    this.name = figure.querySelector("figcaption span").textContent;
    const go = (event) => {
      if (!event.buttons) return;
      const box = this.svg.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      seek(Math.min(Math.max(share, 0), 1) * this.duration);
    };
    this.plot.addEventListener("pointerdown", (event) => {
      this.plot.setPointerCapture(event.pointerId);
      go(event);
    });
    this.plot.addEventListener("pointermove", go);
  }

  /** Shows values at times in seconds. */
  show(times, values, duration) {
    Object.assign(this, { times, values, duration: Math.max(duration, times[times.length - 1], 1e-3) });
    const [least, greatest] = [Math.min(...values), Math.max(...values)];
    const top = STEPS.find((step) => step >= greatest) ?? 1;
    const points = times.map((time, at) => [(1000 * time) / this.duration, 100 - (100 * values[at]) / top]);
    points.push([1000, points[points.length - 1][1]]);
    const line = points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L");
    this.svg.setAttribute("viewBox", "0 0 1000 100");
    this.svg.querySelector(".curve").setAttribute("d", `M${line}`);
    this.svg.querySelector(".area").setAttribute("d", `M0 100L${line}L1000 100Z`);
    this.svg.setAttribute("aria-label", `${this.name}: from ${percent(least)} to ${percent(greatest)}`);
    this.most.textContent = `${Math.round(100 * top)}\u00a0%`;
    this.at(0);
  }

  /** Moves the line of the present to a time. */
  at(time) {
    if (!this.values) return;
    const next = this.times.findIndex((other) => other > time);
    const now = next < 0 ? this.values.length - 1 : Math.max(next - 1, 0);
    this.output.textContent = percent(this.values[now]);
    this.head.style.left = `${Math.min((100 * time) / this.duration, 100)}%`;
  }
}
