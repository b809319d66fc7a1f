// The server's API as this page uses it: the key, requests, server-sent events, and errors that a person can read.

const KEY = "bluelm-key";

export class ServerError extends Error {
  // status: HTTP's; 0 where no answer came at all.
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value.trim()),
};

// A tab is one client to the server: it takes turns with others.
export const user = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;

export async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (problem) {
    if (options.signal?.aborted) throw problem;
    throw gone();
  }
  if (response.ok) return response;
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // not this server's own words; its status must do
  }
  throw new ServerError(told.message ?? `The server answered with ${response.status}.`, response.status, told.code);
}

export async function models() {
  return (await (await request("/v1/models")).json()).data;
}

// Yields what each event of a stream says; a stream that breaks off is an error, one that was told so throws it.
export async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (problem) {
      if (signal?.aborted) throw problem;
      throw new ServerError("The connection to the server broke off.");
    }
    if (piece.done) return;
    const whole = (rest + piece.value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      const value = JSON.parse(data);
      if (value.error) throw new ServerError(value.error.message, 200, value.error.code);
      yield value;
    }
  }
}

// Streams an answer: {text} for each piece, at the end {reason, usage}.
export async function* answer(model, messages, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model, messages, user, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let reason = null;
  for await (const chunk of events(response, signal)) {
    const choice = chunk.choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    reason = choice?.finish_reason ?? reason;
    if (chunk.usage) {
      yield { reason, usage: chunk.usage };
      return;
    }
  }
  throw new ServerError("The answer broke off before its end.");
}

// Has a picture encoded; yields a plan, tiles as they are done, and the end.
export async function* encode(file, signal) {
  const response = await request(`/v1/bluelm/pictures?user=${user}`, {
    method: "POST",
    headers: { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" },
    body: file,
    signal,
  });
  let ended = false;
  for await (const event of events(response, signal)) {
    ended = event.type === "encoded";
    yield event;
  }
  if (!ended) throw new ServerError("The connection to the server broke off.");
}

function gone() {
  return new ServerError("The server does not answer. Is it still running?");
}
