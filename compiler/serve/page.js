"use strict";
const at = (id) => document.getElementById(id);
const said = [];
let film = null, frame = 0, busy = null, last = 0;

function headers() {
  const key = at("key").value;
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function asked(path, options = {}) {
  const answer = await fetch(path, { headers: headers(), ...options });
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

function shown(role, text) {
  const p = document.createElement("p");
  p.className = role;
  p.textContent = text;
  at("chat").append(p);
  p.scrollIntoView({ block: "end" });
  return p;
}

function number(value, digits = 1) {
  return value == null ? "-" : value.toLocaleString("en", { maximumFractionDigits: digits });
}

async function models() {
  try {
    const { data } = await (await asked("/v1/models")).json();
    at("model").replaceChildren(...data.map(({ id }) => new Option(id)));
    await wafer();
  } catch (e) {
    at("about").textContent = e.message;
  }
}

async function wafer() {
  film = null;
  at("about").textContent = "The wafer's plan is being read.";
  try {
    const got = await (await asked(`/film/${encodeURIComponent(at("model").value)}`)).json();
    got.bytes = Uint8Array.from(atob(got.cells), (c) => c.charCodeAt(0));
    film = got;
    const [, , width, height] = film.box;
    at("about").textContent = `${film.wafer}: ${number(width)} x ${number(height)} cores, ` +
      `${number(film.cycles, 0)} cycles a token at ${number(film.clock_hz / 1e9, 2)} GHz. ` +
      "Each token runs over them as drawn, slowed down.";
    at("predicted").textContent = number(film.tokens_per_second);
    draw(0);
  } catch (e) {
    at("about").textContent = e.message;
  }
}

function draw(light) {
  if (!film) return;
  const { rows, columns, colours, bytes } = film;
  const side = Math.floor(384 / Math.max(rows, columns));
  const canvas = at("wafer");
  canvas.width = columns * side;
  canvas.height = rows * side;
  const pen = canvas.getContext("2d");
  const from = frame * rows * columns;
  for (let i = 0; i < rows * columns; i++) {
    const share = light ? Math.sqrt(bytes[from + i] / 255) : 0;
    const [r, g, b] = colours[Math.round(share * (colours.length - 1))];
    pen.fillStyle = share ? `rgb(${r},${g},${b})` : "#26213a";
    pen.fillRect((i % columns) * side, Math.floor(i / columns) * side, side - (side > 3), side - (side > 3));
  }
}

function play(now) {
  if (film && busy && now - last > 40) {
    last = now;
    draw(1);
    frame = (frame + 1) % film.frames;
  }
  if (busy) requestAnimationFrame(play);
  else draw(0);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

async function send(text) {
  said.push({ role: "user", content: text });
  shown("user", text);
  const p = shown("assistant", "");
  busy = new AbortController();
  at("send").disabled = true;
  at("stop").disabled = false;
  requestAnimationFrame(play);
  let first = 0, count = 0;
  try {
    const body = { model: at("model").value, messages: said, stream: true };
    body.temperature = Number(at("temperature").value);
    const answer = await asked("/v1/chat/completions", {
      method: "POST", body: JSON.stringify(body), signal: busy.signal,
    });
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      const more = event.choices[0]?.delta?.content;
      if (more) {
        p.textContent += more;
        p.scrollIntoView({ block: "end" });
        const now = performance.now();
        if (count++) at("measured").textContent = number((count - 1) / (now - first) * 1000);
        else first = now;
      }
      if (event.x_waferc) {
        const { wafer, host } = event.x_waferc;
        at("predicted").textContent = number(wafer.tokens_per_second);
        at("measured").textContent = number(host.tokens_per_second);
        at("cycles").textContent = number(wafer.cycles, 0);
        at("seconds").textContent = `${number(wafer.seconds * 1000, 2)} ms`;
      }
    }
    said.push({ role: "assistant", content: p.textContent });
  } catch (e) {
    if (e.name === "AbortError") said.push({ role: "assistant", content: p.textContent });
    else {
      said.pop();
      p.className = "assistant error";
      p.textContent = e.message;
    }
  } finally {
    busy = null;
    at("send").disabled = false;
    at("stop").disabled = true;
  }
}

at("form").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = at("text").value.trim();
  if (!text || busy) return;
  at("text").value = "";
  send(text);
});
at("text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey) {
    e.preventDefault();
    at("form").requestSubmit();
  }
});
at("stop").addEventListener("click", () => busy?.abort());
at("clear").addEventListener("click", () => {
  said.length = 0;
  at("chat").replaceChildren();
});
at("model").addEventListener("change", wafer);
at("key").addEventListener("change", models);
models();
