// The list of videos: those that are being sent, and those that the server holds.

export const megabytes = (bytes) => (bytes < 1e5 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`);

const STATES = {
  sending: "Sending",
  queued: "Waits to be sent",
  waiting: "Waits for its turn",
  running: "Working",
  done: "Done",
  failed: "Not possible",
  cancelled: "Cancelled",
};

function element(tag, name, text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

export class List {
  /**
   * @param {HTMLElement} place
   * @param {(id: string) => void} select
   * @param {(id: string) => void} remove
   */
  constructor(place, select, remove) {
    Object.assign(this, { place, select, remove, rows: new Map() });
  }

  /** Shows items with the fields id, title, bytes, state, progress and message; one of them is selected. */
  show(items, selected) {
    const known = new Set(items.map((item) => item.id));
    for (const [id, row] of this.rows) {
      if (!known.has(id)) {
        row.item.remove();
        this.rows.delete(id);
      }
    }
    for (const item of items) {
      if (!this.rows.has(item.id)) this.rows.set(item.id, this.add(item));
      this.update(this.rows.get(item.id), item, item.id === selected);
    }
    items.forEach((item, at) => {
      const row = this.rows.get(item.id).item;
      if (this.place.children[at] !== row) this.place.insertBefore(row, this.place.children[at] ?? null);
    });
  }

  add(item) {
    const row = { item: element("li"), open: element("button", "open"), text: element("span", "state") };
    row.open.type = "button";
    row.open.append(element("span", "name", item.title), row.text);
    row.open.addEventListener("click", () => this.select(item.id));
    row.bar = element("progress");
    row.bar.max = 1;
    row.bar.setAttribute("aria-label", `How far ${item.title} is`);
    row.close = element("button", "icon close");
    row.close.type = "button";
    row.close.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="line" d="m7 7 10 10M17 7 7 17"/></svg>';
    row.close.addEventListener("click", () => this.remove(item.id));
    row.item.append(row.open, row.close, row.bar);
    return row;
  }

  update(row, item, isSelected) {
    const isActive = !["done", "failed", "cancelled"].includes(item.state);
    row.item.className = `${item.state}${isSelected ? " selected" : ""}`;
    row.open.disabled = item.state !== "done";
    row.open.toggleAttribute("aria-current", isSelected);
    if (isSelected) row.open.setAttribute("aria-current", "true");
    row.bar.hidden = !isActive;
    const isKnown = item.state === "sending" || (item.state === "running" && (item.progress < 0.4 || item.progress > 0.41));
    if (isKnown) row.bar.value = item.progress;
    else row.bar.removeAttribute("value");
    const state = item.state === "running" ? (item.progress < 0.4 ? "Reading the video" : "Computing the maps") : STATES[item.state];
    row.text.textContent = item.message || `${state} · ${megabytes(item.bytes)}`;
    const verb = isActive ? "Cancel" : "Remove";
    row.close.setAttribute("aria-label", `${verb} ${item.title}`);
    row.close.title = verb;
  }
}
