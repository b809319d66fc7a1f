// A picture: shown as the model will see it, tile by tile as the server encodes it, and ready to be sent with a question.

import { encode } from "./api.js";

const numbers = new Intl.NumberFormat("en");

export class Picture {
  // file: what was chosen; told: called with a sentence for the screen reader when something is done; after: the picture
  // before it, which the server is to have first.
  constructor(file, told, after) {
    this.file = file;
    this.name = file.name || "Pasted picture";
    this.told = told;
    this.leaving = new AbortController();
    this.figure = document.getElementById("picture").content.firstElementChild.cloneNode(true);
    this.caption = this.figure.querySelector("figcaption");
    this.remover = this.figure.querySelector(".remove");
    this.remover.setAttribute("aria-label", `Remove ${this.name}`);
    this.show();
    this.uri = dataUri(file);
    this.uri.catch(() => {}); // told when it is asked for
    this.known = new Promise((resolve) => (this.knows = resolve));
    Promise.resolve(after?.known).then(() => this.watch());
  }

  show() {
    const image = this.figure.querySelector("img");
    this.address = URL.createObjectURL(this.file);
    image.alt = this.name;
    image.title = this.name;
    // Some formats that the server reads, a browser does not show.
    image.addEventListener("error", () => {
      const name = document.createElement("span");
      name.textContent = this.name;
      image.replaceWith(name);
    });
    image.src = this.address;
    this.say("sent", "Sending …");
  }

  // Follows the encoding; a picture that could not be encoded ahead is encoded with its question.
  async watch() {
    try {
      for await (const event of encode(this.file, this.leaving.signal)) {
        if (event.type === "plan") this.plan(event);
        else if (event.type === "tiles") this.tiles(event.done);
        else this.done(event);
      }
    } catch (problem) {
      if (this.leaving.signal.aborted) return;
      const busy = problem.status === 429;
      this.say(busy ? "later" : "failed", busy ? "The server is busy: read with the question." : problem.message);
      if (!busy) this.told(`${this.name}: ${problem.message}`);
    } finally {
      this.knows();
    }
  }

  plan(plan) {
    this.planned = plan;
    this.knows();
    const [width, height] = plan.canvas;
    const [left, top, right, bottom] = plan.picture;
    const stage = this.figure.querySelector(".stage");
    stage.style.setProperty("--ratio", width / height);
    stage.style.setProperty("--cols", plan.grid[0]);
    stage.style.setProperty("--rows", plan.grid[1]);
    stage.style.setProperty("--left", `${(100 * left) / width}%`);
    stage.style.setProperty("--top", `${(100 * top) / height}%`);
    stage.style.setProperty("--width", `${(100 * (right - left)) / width}%`);
    stage.style.setProperty("--height", `${(100 * (bottom - top)) / height}%`);
    const tiles = plan.boxes.map(() => document.createElement("i"));
    stage.querySelector(".tiles").replaceChildren(...tiles);
    this.say("waits", `${this.grid()} · waits for the model`);
  }

  tiles(done) {
    const local = done - (this.planned.thumbnail ? 1 : 0);
    this.figure.querySelectorAll(".tiles i").forEach((tile, index) => {
      tile.dataset.state = index < local ? "done" : index === local ? "now" : "";
    });
    this.say("encoding", `${this.grid()} · ${done} of ${this.planned.tiles} read`);
  }

  done({ seconds, reused }) {
    this.figure.querySelectorAll(".tiles i").forEach((tile) => (tile.dataset.state = "done"));
    const took = reused ? "known" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
    this.say("ready", `${this.grid()} · ${numbers.format(this.planned.tokens)} tokens · ${took}`);
    this.told(`${this.name}: ${this.planned.tiles} tiles, ${took}.`);
  }

  grid() {
    const [cols, rows] = this.planned.grid;
    return cols * rows === 1 ? "1 tile" : `${cols}×${rows} tiles`;
  }

  say(state, text) {
    this.figure.dataset.state = state;
    this.caption.textContent = text;
  }

  // The picture belongs to a question now and can no longer be taken away.
  settle() {
    this.remover.remove();
  }

  // The server need not work for it any more.
  leave() {
    this.leaving.abort();
    this.figure.remove();
    URL.revokeObjectURL(this.address);
  }
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    const kind = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    reader.onload = () => resolve(`data:${kind};base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    reader.onerror = () => reject(new Error(`${file.name} can no longer be read.`));
    reader.readAsDataURL(file);
  });
}
