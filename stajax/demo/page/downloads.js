// What can be downloaded: each file is made when somebody asks for it, with the present settings.

import { fileAddress, order } from "./server.js";
import { megabytes } from "./list.js";

const ABOUT = {
  overlay: ["mp4", "The video with the map over it and its sound, as shown above."],
  maps: ["npz", "All maps as arrays for Python, with their times."],
  pictures: ["zip of png", "Every map as a grey picture."],
  numbers: ["json", "Where people look in every frame: peak, centre, spread, entropy."],
  table: ["csv", "The same as a table."],
  boxes: ["jsonl", "Boxes around what people look at, for every frame."],
  crop: ["jsonl", "A window of the chosen shape that follows attention."],
  cropped: ["mp4", "The video cut to that window, with more bits where people look."],
  blocks: ["zip", "A weight for every block of 16 pixels, for encoders."],
  all: ["zip", "All of these in one file."],
};

export class Downloads {
  /**
   * @param {HTMLElement} place
   * @param {Object<string, string>} kinds titles of files by their kinds
   * @param {() => object} settings returns the present settings, and the video
   * @param {(message: string) => void} complain
   * @param {() => void} poll makes the page ask the server how things stand
   */
  constructor(place, kinds, settings, complain, poll) {
    Object.assign(this, { settings, complain, poll, rows: {}, wanted: new Map() });
    for (const [kind, title] of Object.entries(kinds)) {
      const row = document.createElement("li");
      const [ending, about] = ABOUT[kind];
      row.innerHTML = '<div><b></b> <span class="ending"></span><p class="soft small"></p></div><button type="button" class="button"></button>';
      row.querySelector("b").textContent = title;
      row.querySelector(".ending").textContent = ending;
      row.querySelector("p").textContent = about;
      const button = row.querySelector("button");
      button.setAttribute("aria-label", `Download: ${title}`);
      button.textContent = "Download";
      button.addEventListener("click", () => this.ask(kind));
      this.rows[kind] = { row, button, title };
      place.append(row);
    }
  }

  /** Forgets what was asked for, because another video is shown. */
  clear() {
    this.wanted.clear();
    for (const kind of Object.keys(this.rows)) this.say(kind, "Download", false);
  }

  async ask(kind) {
    const { video, ...settings } = this.settings();
    this.say(kind, "Making …", true);
    try {
      this.wanted.set(await order(video, { kind, ...settings }), kind);
      this.poll();
    } catch (error) {
      this.say(kind, "Download", false);
      this.complain(error.message);
    }
  }

  /** Takes what the server says about the files of the video that is shown. */
  update(video, files) {
    for (const file of files) {
      const kind = this.wanted.get(file.id);
      if (!kind) continue;
      if (file.state === "done") {
        this.wanted.delete(file.id);
        this.say(kind, `Download again · ${megabytes(file.bytes)}`, false);
        const link = document.createElement("a");
        link.href = fileAddress(video, file.id);
        link.download = file.name;
        link.click();
      } else if (file.state === "failed" || file.state === "cancelled") {
        this.wanted.delete(file.id);
        this.say(kind, "Download", false);
        if (file.message) this.complain(file.message);
      } else {
        this.say(kind, file.state === "waiting" ? "Waiting …" : `Making … ${Math.round(100 * file.progress)} %`, true);
      }
    }
  }

  get isBusy() {
    return this.wanted.size > 0;
  }

  say(kind, text, isBusy) {
    const { button, title } = this.rows[kind];
    button.textContent = text;
    button.disabled = isBusy;
    button.setAttribute("aria-label", `${text}: ${title}`);
  }
}
