// The page: takes videos, shows one of them with its maps, and offers its files.

import { Chart } from "./chart.js";
import { Downloads } from "./downloads.js";
import { List, megabytes } from "./list.js";
import { drawScale, Heat, MapTrack } from "./maps.js";
import { Player } from "./player.js";
import * as server from "./server.js";

const POLL = 400; // milliseconds
const RETRY = 3000; // milliseconds, where the server could not be reached
const by = (id) => document.getElementById(id);

let state = null; // what the server has said last
let shown = null; // {id, found, view, tracks} of the video that is shown
let copy = null; // the name of the converted copy that is being made
let timer = 0;
let isLost = false; // whether the server could not be reached
const sending = []; // videos that the server does not hold yet: {id, title, bytes, file, state, progress, message, upload}

function complain(message) {
  by("alert").textContent = message;
  by("alert").hidden = !message;
}

const attempt = (work) => async (...arguments_) => {
  try {
    return await work(...arguments_);
  } catch (error) {
    complain(error.message);
    return undefined;
  }
};

// Taking videos

function add(files) {
  complain("");
  for (const file of files) {
    const item = { id: `new-${Math.random()}`, title: file.name, bytes: file.size, file, state: "queued", progress: 0, message: "" };
    const limit = state?.limits.max_bytes ?? Infinity;
    if (file.size > limit) {
      item.state = "failed";
      item.message = `This file has ${megabytes(file.size)}. This page takes at most ${megabytes(limit)}; \`stajax predict\` takes more.`;
    }
    sending.push(item);
  }
  render();
  sendNext();
}

async function sendNext() {
  if (sending.some((item) => item.state === "sending")) return;
  const item = sending.find((other) => other.state === "queued");
  if (!item) return;
  item.state = "sending";
  item.upload = server.upload(item.file, (share) => {
    item.progress = share;
    render();
  });
  try {
    await item.upload.done;
    sending.splice(sending.indexOf(item), 1);
  } catch (error) {
    if (error.message) Object.assign(item, { state: "failed", message: error.message });
  }
  await poll();
  sendNext();
}

const remove = attempt(async (id) => {
  const at = sending.findIndex((item) => item.id === id);
  if (at >= 0) {
    const [item] = sending.splice(at, 1);
    item.upload?.cancel();
    render();
    return;
  }
  await server.remove(id);
  if (shown?.id === id) close();
  await poll();
});

// How things stand

async function poll() {
  clearTimeout(timer);
  try {
    await update();
    if (isLost) complain("");
    isLost = false;
  } catch (error) {
    complain(error.message);
    isLost = true; // a machine that slept may have broken a request, and nothing else would ask again
    clearTimeout(timer);
    timer = setTimeout(poll, RETRY);
  }
}

async function update() {
  const before = new Map((state?.videos ?? []).map((video) => [video.id, video.state]));
  const isFirst = state === null;
  state = await server.getState();
  if (isFirst) begin();
  render();
  for (const video of state.videos) {
    if (before.get(video.id) !== video.state && !isFirst) announce(video);
  }
  if (shown && !state.videos.some((video) => video.id === shown.id)) close();
  const done = state.videos.filter((video) => video.state === "done");
  if (!shown && done.length) await select(isFirst ? done[done.length - 1].id : done[0].id);
  watchFiles();
  const isBusy = downloads.isBusy || copy || state.videos.some((video) => ["waiting", "running"].includes(video.state));
  if (isBusy) timer = setTimeout(poll, POLL);
}

function announce(video) {
  if (video.state === "done") by("spoken").textContent = `${video.title} is done.`;
  if (video.state === "failed") by("spoken").textContent = `${video.title}: ${video.message}`;
}

function render() {
  const items = [...(state?.videos ?? []), ...sending];
  list.show(items, shown?.id);
  by("videos-title").hidden = !items.length;
  by("layout").classList.toggle("fresh", !items.length);
  by("empty").hidden = Boolean(shown);
  by("work").hidden = !shown;
}

function begin() {
  const { max_bytes: bytes, max_seconds: seconds } = state.limits;
  const length = seconds % 60 || seconds < 60 ? `${seconds} seconds` : `${seconds / 60} minute${seconds === 60 ? "" : "s"}`;
  by("limits").textContent = `Up to ${megabytes(bytes)} and ${length} each. Nothing leaves this machine.`;
  const synthetic = state.model.trained_on === "synthetic" ? " It was trained on rendered clips only." : "";
  by("about").textContent = `Predicted by ${state.model.name === "stajax's own" ? "the model that stajax comes with" : state.model.name}.${synthetic}`;
  drawScale(by("scale"), state.colours);
  heat = new Heat(state.colours);
  by("opacity").value = 100 * state.opacity;
  by("aspect").replaceChildren(...state.aspects.map((text) => new Option(text)));
  by("boxes").replaceChildren(...[1, 2, 3, 4, 5, 6, 8, 10].map((count) => new Option(count, count, count === 3, count === 3)));
  downloads = new Downloads(by("downloads"), state.kinds, settings, complain, poll);
  label();
}

// One video

const select = attempt(async (id) => {
  const found = await server.getFound(id);
  const given = Object.keys(found.concentration); // beside each other: with and without sound
  const heard = given.filter((view) => !view.endsWith(state.no_sound));
  const views = heard.flatMap((view) => [view, view + state.no_sound].filter((name) => given.includes(name)));
  const tracks = {};
  for (const view of views) {
    tracks[view] = new MapTrack(await server.getMaps(id, view), found.times, found.side, found.maps_a_second);
  }
  shown = { id, found, view: "final", views, tracks };
  copy = null;
  by("wait").hidden = true;
  downloads.clear();
  describe();
  showTiles();
  render();
  charts.concentration.show(found.times, found.concentration.final, found.duration);
  by("moved").hidden = !found.moved.length;
  by("silent").hidden = Boolean(found.moved.length);
  if (found.moved.length) charts.moved.show(found.times, found.moved, found.duration);
  player.load(server.originalAddress(id), found.duration);
  label();
});

function close() {
  player.close();
  shown = null;
  copy = null;
  render();
}

function describe() {
  const { found } = shown;
  const [width, height] = found.size;
  const video = state.videos.find((other) => other.id === shown.id);
  by("title").textContent = video.title;
  const facts = [`${width} × ${height}`, `${found.duration.toFixed(1)} s`, `${+found.rate.toFixed(2)} frames a second`];
  facts.push(found.has_sound ? "with sound" : "without sound", `${found.times.length} maps`);
  by("facts").textContent = facts.join(" · ");
  by("frame").style.setProperty("--ratio", width / height);
  by("notes").replaceChildren(...found.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
}

function nameOf(view) {
  const isSilent = view.endsWith(state.no_sound);
  const isOnly = Object.keys(state.views).length === 1;
  const name = isOnly ? "" : state.views[isSilent ? view.slice(0, -state.no_sound.length) : view];
  const sound = isSilent ? "without sound" : "with sound";
  return { name, sound: shown.found.has_sound ? sound : "" };
}

function showTiles() {
  const { views, found } = shown;
  by("compare").hidden = views.length < 2;
  const isFew = views.length <= 2;
  by("tiles").classList.toggle("few", isFew);
  const tiles = views.map((view) => {
    const { name, sound } = nameOf(view);
    const tile = document.createElement("label");
    tile.className = "tile";
    tile.innerHTML = '<input type="radio" name="view"><canvas aria-hidden="true"></canvas><span></span>';
    const text = [name, sound].filter(Boolean).join(", ");
    tile.querySelector("span").textContent = text.charAt(0).toUpperCase() + text.slice(1);
    const [input, canvas] = tile.children;
    input.checked = view === shown.view;
    input.addEventListener("change", () => choose(view));
    canvas.width = 320;
    canvas.height = Math.max(1, Math.round((320 * found.size[1]) / found.size[0]));
    return { view, tile, context: canvas.getContext("2d") };
  });
  shown.tiles = tiles;
  by("tiles").replaceChildren(...tiles.map(({ tile }) => tile));
}

function choose(view) {
  shown.view = view;
  charts.concentration.show(shown.found.times, shown.found.concentration[view], shown.found.duration);
  label();
  draw(player.time);
}

function settings() {
  return {
    video: shown.id,
    view: shown.view,
    opacity: Number(by("opacity").value) / 100,
    smooth: Number(by("smooth").value),
    aspect: by("aspect").value,
    boxes: Number(by("boxes").value),
  };
}

function label() {
  const opacity = `${by("opacity").value}\u00a0%`;
  const smooth = Number(by("smooth").value);
  by("opacity-value").textContent = opacity;
  by("opacity").setAttribute("aria-valuetext", opacity);
  by("smooth-value").textContent = smooth ? `${smooth.toFixed(1)} s` : "none";
  by("smooth").setAttribute("aria-valuetext", smooth ? `${smooth.toFixed(1)} seconds` : "none");
  if (!shown) return;
  const view = Object.values(nameOf(shown.view)).filter(Boolean).join(", ");
  by("made-of").textContent = `Made of the map that is shown large${view && ` (${view})`}, with the opacity and the smoothing that are set above.`;
}

function draw(time) {
  charts.concentration.at(time);
  charts.moved.at(time);
  if (!shown) return;
  const smooth = Number(by("smooth").value);
  const opacity = Number(by("opacity").value) / 100;
  for (const { view, context } of shown.tiles) {
    heat.draw(shown.tracks[view].at(time, smooth), shown.found.side);
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    if (player.video.readyState >= 2) context.drawImage(player.video, 0, 0, width, height);
    heat.over(context, opacity);
    if (view === shown.view) drawOverlay(opacity);
  }
}

function drawOverlay(opacity) {
  const canvas = by("overlay");
  const width = Math.min(1280, Math.round(canvas.clientWidth * devicePixelRatio)) || 1;
  const height = Math.max(1, Math.round((width * shown.found.size[1]) / shown.found.size[0]));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  heat.over(context, opacity);
}

// The copy for browsers that cannot play the file

const convert = attempt(async () => {
  if (!shown || copy) return;
  by("wait").textContent = "This browser cannot play the file as it is. A copy is being made …";
  by("wait").hidden = false;
  copy = await server.order(shown.id, { kind: "copy" });
  await poll();
});

function watchFiles() {
  const video = shown && state.videos.find((other) => other.id === shown.id);
  if (!video) return;
  downloads.update(shown.id, video.files);
  const file = video.files.find((other) => other.id === copy);
  if (!file) return;
  if (file.state === "done") {
    copy = null;
    by("wait").hidden = true;
    player.load(server.fileAddress(shown.id, file.id), shown.found.duration);
  } else if (file.state === "failed") {
    copy = null;
    by("wait").textContent = "This video cannot be played here. Its downloads can still be made.";
  } else {
    by("wait").textContent = `This browser cannot play the file as it is. A copy is being made: ${Math.round(100 * file.progress)} %`;
  }
}

// Everything together

let heat = null;
let downloads = { isBusy: false };
const player = new Player(draw, () => convert());
const charts = {
  concentration: new Chart(by("concentration"), (time) => player.seek(time)),
  moved: new Chart(by("moved"), (time) => player.seek(time)),
};
const list = new List(by("list"), (id) => {
  complain("");
  if (shown?.id !== id) select(id);
}, remove);

by("pick").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
let depth = 0; // of elements that the pointer has entered with files
addEventListener("dragenter", () => by("drop").classList.toggle("over", (depth += 1) > 0));
addEventListener("dragleave", () => by("drop").classList.toggle("over", (depth -= 1) > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  by("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
  const folders = new Set(entries.filter((entry) => entry?.isDirectory).map((entry) => entry.name));
  add([...event.dataTransfer.files].filter((file) => !folders.has(file.name)));
  if (folders.size) complain(`${[...folders].join(", ")}: a folder cannot be sent. Please drop the videos in it.`);
});
addEventListener("focus", poll); // another tab may have sent or removed videos
for (const id of ["opacity", "smooth"]) {
  by(id).addEventListener("input", () => {
    label();
    draw(player.time);
  });
}
by("convert").addEventListener("click", convert);
addEventListener("resize", () => draw(player.time));
document.addEventListener("fullscreenchange", () => draw(player.time));
poll();
