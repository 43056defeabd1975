// Requests to the server that the page came from.

/** An answer that says in words why something cannot be done. */
export class Refusal extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal("The page cannot reach `stajax demo`. Is it still running in the terminal?");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  if (answer.status === 403) throw new Refusal(text); // the guard speaks plainly, as to the page of a server that ended
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    // It said nothing that can be read.
  }
  throw new Refusal(said.error || "Something unexpected happened. The terminal says more.");
}

const json = async (path) => (await ask(path)).json();

/** What the page takes, what the model is, and how all videos stand. */
export const getState = () => json("state");

/** What was found in a video. */
export const getFound = (video) => json(`videos/${video}`);

/** The small maps of a view, a Uint8Array. */
export async function getMaps(video, view) {
  return new Uint8Array(await (await ask(`videos/${video}/maps/${view}`)).arrayBuffer());
}

/** Cancels whatever is done for a video, and removes it. */
export const remove = (video) => ask(`videos/${video}`, { method: "DELETE" });

/** Orders a file; returns its name, under which the state says when it is there. */
export async function order(video, fields) {
  const answer = await ask(`videos/${video}/files`, { method: "POST", body: JSON.stringify(fields) });
  return (await answer.json()).id;
}

export const originalAddress = (video) => `videos/${video}/original`;
export const fileAddress = (video, file) => `videos/${video}/files/${file}`;

/**
 * Sends a video.
 * @param {File} file
 * @param {(share: number) => void} advance takes the part that is sent
 * @returns {{done: Promise<void>, cancel: () => void}}
 */
export function upload(file, advance) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", (event) => advance(event.loaded / Math.max(event.total, 1)));
    request.addEventListener("load", () => {
      if (request.status === 201) return resolve();
      let said = {};
      try {
        said = JSON.parse(request.responseText);
      } catch {
        // It said nothing that can be read.
      }
      reject(new Refusal(said.error || "The video could not be taken."));
    });
    request.addEventListener("error", () => reject(new Refusal("The video could not be sent. Is `stajax demo` still running?")));
    request.addEventListener("abort", () => reject(new Refusal("")));
  });
  request.open("POST", `videos?name=${encodeURIComponent(file.name)}`);
  request.send(file);
  return { done, cancel: () => request.abort() };
}
