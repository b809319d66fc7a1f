// The page: what is typed, dropped, pasted and pressed; which turns there are; the key where the server wants one.

import { key, models } from "./api.js";
import { Picture } from "./picture.js";
import { Turn } from "./turn.js";

const $ = (id) => document.getElementById(id);
const turns = [];
let pictures = [];
let last = null; // the picture that was added last
let current = null; // the turn that is being answered
let refused = null; // the turn that waits for a key
let model = null;

// ---- asking

async function send() {
  const text = $("question").value.trim();
  if (!text || current) {
    if (current) tell("The answer is still being written. Escape stops it.");
    return;
  }
  const turn = new Turn(text, pictures);
  pictures = [];
  $("question").value = "";
  turns.push(turn);
  turn.find(".problem button").addEventListener("click", () => ask(turn));
  $("turns").append(turn.element);
  changed();
  scroll(true);
  await ask(turn);
}

// A turn that failed is asked again where it stands.
async function ask(turn) {
  if (current) return;
  const before = turns.slice(0, turns.indexOf(turn));
  current = turn;
  changed();
  tell("The model is answering.");
  $("turns").setAttribute("aria-busy", "true");
  try {
    model ??= await enter();
    await fitting(turn, before);
    tell(turn.state === "stopped" ? "Stopped." : turn.said);
  } catch (problem) {
    if (turn.state !== "failed") turn.fail(problem);
    scroll(true);
    if (problem.status === 401) {
      refused = turn;
      open(problem.message);
    }
  } finally {
    $("turns").setAttribute("aria-busy", "false");
    current = null;
    changed();
  }
}

// Asks; what no longer fits the model loses its oldest turns, each whole.
async function fitting(turn, before) {
  for (;;) {
    try {
      return await turn.ask(model, before, () => scroll(false));
    } catch (problem) {
      const oldest = before.find((other) => !other.forgotten);
      if (problem.code !== "context_length_exceeded" || !oldest) throw problem;
      oldest.forget();
    }
  }
}

function restart() {
  current?.stop();
  refused = null;
  for (const turn of turns.splice(0)) {
    turn.pictures.forEach((picture) => picture.leave());
    turn.element.remove();
  }
  changed();
  $("question").focus();
  tell("A new conversation.");
}

// ---- pictures

function add(files) {
  $("notice").hidden = true;
  for (const file of files) {
    // Browsers know no type for some pictures (HEIC): the server looks at them.
    if (file.type && !file.type.startsWith("image/")) {
      warn(`${file.name} is no picture.`);
      continue;
    }
    const picture = new Picture(file, tell, last);
    last = picture;
    picture.remover.addEventListener("click", () => drop(picture));
    pictures.push(picture);
    $("pictures").append(picture.figure);
    changed(); // makes room for it
    $("pictures").scrollLeft = $("pictures").scrollWidth;
  }
  $("question").focus();
}

function drop(picture) {
  pictures = pictures.filter((other) => other !== picture);
  picture.leave();
  changed();
  $("question").focus();
  tell(`${picture.name} was removed.`);
}

// ---- the key

async function enter() {
  const [first] = await models();
  $("model").textContent = first.id;
  document.title = first.id;
  return first.id;
}

function open(problem = "") {
  $("key-problem").textContent = key.get() ? problem : "";
  $("key-problem").hidden = !key.get();
  if (!$("door").open) $("door").showModal();
  $("key").select();
}

async function arrive() {
  try {
    model = await enter();
    $("notice").hidden = true;
    if ($("door").open) $("door").close();
    $("question").focus();
    const turn = refused;
    refused = null;
    if (turn) ask(turn);
  } catch (problem) {
    if (problem.status === 401) open(problem.message);
    else warn(problem.message);
  }
}

// ---- what is seen and heard

function changed() {
  const following = atEnd();
  $("welcome").hidden = turns.length > 0 || pictures.length > 0;
  $("new").hidden = turns.length === 0;
  $("pictures").hidden = pictures.length === 0;
  $("send").hidden = current !== null;
  $("stop").hidden = current === null;
  $("send").disabled = !$("question").value.trim();
  if (following) scroll(true);
}

function tell(text) {
  $("status").textContent = text;
}

function warn(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

// Follows the answer, unless the reader has scrolled away from its end.
function scroll(always) {
  const page = document.scrollingElement;
  if (always || atEnd()) page.scrollTop = page.scrollHeight;
}

function atEnd() {
  const page = document.scrollingElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 120;
}

// ---- events

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("question").addEventListener("input", changed);
$("question").addEventListener("keydown", (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => {
  current?.stop();
  $("question").focus();
});
$("new").addEventListener("click", restart);
$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  add($("files").files);
  $("files").value = "";
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value);
  arrive();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && current && !$("door").open) current.stop();
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  add(event.clipboardData.files);
});

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});

changed();
arrive();
