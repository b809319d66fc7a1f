// A question, its pictures, and the answer as it streams, with what it took.

import { answer } from "./api.js";
import { Rendered } from "./markdown.js";

const numbers = new Intl.NumberFormat("en");

export class Turn {
  constructor(text, pictures) {
    this.text = text;
    this.pictures = pictures;
    this.said = "";
    this.state = "new"; // then asking, answered, stopped, failed
    this.element = document.getElementById("turn").content.firstElementChild.cloneNode(true);
    this.find(".said").textContent = text;
    this.find(".shown").append(...pictures.map((picture) => picture.figure));
    pictures.forEach((picture) => picture.settle());
    this.rendered = new Rendered(this.find(".text"));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  // What the model reads of this turn.
  async messages(pictures) {
    const urls = await Promise.all(pictures.map((picture) => picture.uri));
    const shown = urls.map((url) => ({ type: "image_url", image_url: { url } }));
    const asked = { role: "user", content: [...shown, { type: "text", text: this.text }] };
    return this.said ? [asked, { role: "assistant", content: this.said }] : [asked];
  }

  // Asks, after the turns before this one; grown is called whenever more can be seen. Throws ServerError.
  async ask(model, before, grown) {
    this.leaving = new AbortController();
    this.begin();
    const clock = new Clock();
    try {
      const messages = await conversation([...before.filter((turn) => !turn.forgotten), this]);
      for await (const piece of answer(model, messages, this.leaving.signal)) {
        if (piece.usage) this.end(clock, piece);
        else this.add(clock, piece.text, grown);
      }
    } catch (problem) {
      this.draw(clock);
      if (!this.leaving.signal.aborted) {
        this.fail(problem);
        throw problem;
      }
      this.close("stopped", `stopped · ${clock.words()}`);
    } finally {
      grown();
    }
  }

  stop() {
    this.leaving?.abort();
  }

  // The conversation has become too long: the model no longer reads this turn.
  forget() {
    this.forgotten = true;
    this.element.classList.add("forgotten");
    this.find(".figures").textContent = "No longer read by the model: the conversation is as long as it can be.";
  }

  begin() {
    this.said = "";
    this.rendered.set("");
    this.find(".problem").hidden = true;
    this.close("asking", "");
  }

  add(clock, text, grown) {
    this.said += text;
    clock.token();
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.draw(clock);
      grown();
    });
  }

  draw(clock) {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    this.rendered.set(this.said);
    if (clock.tokens) this.find(".figures").textContent = clock.words();
  }

  end(clock, { reason, usage }) {
    clock.end(usage.completion_tokens);
    this.draw(clock);
    if (!this.said) this.find(".text").textContent = "(The model said nothing.)";
    const { cached_tokens: known = 0 } = usage.prompt_tokens_details ?? {};
    const read = `prompt ${numbers.format(usage.prompt_tokens)}${known ? `, ${numbers.format(known)} of it known` : ""}`;
    this.close("answered", `${clock.words()} · ${read}${reason === "length" ? " · cut at the limit" : ""}`);
  }

  fail(problem) {
    const box = this.find(".problem");
    box.querySelector("p").textContent = problem.message;
    box.hidden = false;
    this.close("failed", "");
  }

  close(state, figures) {
    this.state = state;
    this.element.dataset.state = state;
    this.find(".figures").textContent = figures;
  }
}

// A question without an answer is left out; its pictures go with the next one.
async function conversation(turns) {
  const messages = [];
  let carried = [];
  for (const turn of turns) {
    carried = carried.concat(turn.pictures);
    if (!turn.said && turn !== turns.at(-1)) continue;
    messages.push(...(await turn.messages(carried)));
    carried = [];
  }
  return messages;
}

// When the question went out, when its first words came, and how many followed.
class Clock {
  constructor() {
    this.asked = performance.now();
    this.tokens = 0;
  }

  token() {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += 1;
  }

  // The server has counted; pieces of text may have held several tokens, or none.
  end(tokens) {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens = tokens;
  }

  words() {
    if (!this.tokens) return "before the first token";
    const made = `${numbers.format(this.tokens)} token${this.tokens === 1 ? "" : "s"}`;
    const first = `first after ${((this.first - this.asked) / 1000).toFixed(2)} s`;
    const seconds = (this.last - this.first) / 1000;
    // A few tokens that come in one packet say nothing about the rate.
    if (this.tokens < 2 || seconds < 0.05) return `${made} · ${first}`;
    const rate = (this.tokens - 1) / seconds;
    return `${made} · ${first} · ${rate < 10 ? rate.toFixed(1) : numbers.format(Math.round(rate))} a second`;
  }
}
