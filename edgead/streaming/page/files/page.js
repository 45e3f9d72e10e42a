"use strict";

// The page asks for the numbers once a second and for the newest image a few times a second. It keeps no connection, so
// it finds the stream again after a restart.
const NUMBERS_MS = 1000, IMAGE_MS = 200, AWAY_MS = 2000, OLD_S = 3;
const WIDTH = 600, HEIGHT = 200;
const byId = (id) => document.getElementById(id);
const state = { run: null, numbers: null, image: 0, draft: null, failedAt: null, imageAge: null, imageAt: 0 };

function digits(value) {
  return value === 0 ? "0" : Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}
function percent(share) {
  return `${Number((100 * share).toPrecision(2))} %`;
}
function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
function text(id, value) {
  const element = byId(id), shown = String(value);
  if (element.textContent !== shown) element.textContent = shown;
}

// The answer, or null if there is none. An error of this page itself is no lost connection.
async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store" });
  } catch {
    return null;
  }
  // The token was changed: the form for it is at the same address.
  if (answer.status === 401) location.reload();
  return answer.ok ? answer : null;
}

async function change(path, body) {
  const message = byId("message"), name = byId("name").value.trim();
  message.hidden = true;
  let problem = "";
  if (!name) {
    problem = "Write your name first, because the log keeps who made a change.";
    byId("name").focus();
  } else {
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...body, name }),
      });
      if (!answer.ok) problem = await answer.text();
    } catch {
      problem = "The stream does not answer, so nothing was changed.";
    }
  }
  message.textContent = problem;
  message.hidden = problem === "";
  if (problem) message.scrollIntoView({ block: "nearest" });
  else await update();
  return problem === "";
}

function showState(numbers) {
  byId("state").dataset.state = numbers.state;
  text("state-name", numbers.state.replace("_", " "));
  text("state-reason", numbers.reason);
  text("state-since", `for ${span(numbers.state_s)}`);
  document.title = `${numbers.state.replace("_", " ")} - ${numbers.part}`;
  text("part", numbers.part);
  text("source", numbers.source);
  text("pause", numbers.is_paused ? "Resume" : "Pause");
}

function showAway() {
  state.failedAt ??= Date.now();
  byId("state").dataset.state = "offline";
  text("state-name", "no connection");
  text("state-reason", "The stream has ended, or the network is away. This page tries again.");
  text("state-since", `for ${span((Date.now() - state.failedAt) / 1000)}`);
  document.title = "no connection";
  byId("live").classList.add("old");
}

function showCounts(numbers) {
  for (const name of ["good", "rejected", "withheld"]) text(name, numbers[name].toLocaleString("en"));
  const slow = numbers.rate > 0 && numbers.rate < 1;
  text("rate", numbers.rate === 0 ? "0" : (slow ? numbers.rate * 60 : numbers.rate).toFixed(1));
  text("rate-unit", slow ? "verdicts a minute" : "verdicts a second");
  for (const [name, value] of [["latency", numbers.latency_ms], ["age", numbers.age_ms]]) {
    text(name, value === null ? "-" : value.p50.toFixed(1));
    text(`${name}-99`, value === null ? "-" : value.p99.toFixed(1));
  }
}

function showChart(numbers) {
  const scores = numbers.scores, limit = numbers.threshold.value;
  const top = 1.1 * Math.max(1.5 * limit, state.draft ?? 0, ...scores.map((one) => one[1]));
  const y = (score) => (HEIGHT * (1 - Math.max(score, 0) / top)).toFixed(1);
  const x = (place) => (WIDTH * (place + 0.5) / Math.max(scores.length, 20)).toFixed(1);
  const dots = ["", ""];
  let line = "";
  scores.forEach(([, score, rejected], place) => {
    const point = `${x(place)} ${y(score)}`;
    dots[Number(rejected)] += `M${point}h0`;
    line += `${place ? "L" : "M"}${point}`;
  });
  byId("scores").setAttribute("d", line);
  byId("good-dots").setAttribute("d", dots[0]);
  byId("reject-dots").setAttribute("d", dots[1]);
  byId("above").setAttribute("height", y(limit));
  for (const [id, value] of [["limit", limit], ["draft", state.draft ?? limit]]) {
    byId(id).setAttribute("y1", y(value));
    byId(id).setAttribute("y2", y(value));
  }
  byId("draft").toggleAttribute("hidden", state.draft === null);
  text("limit-value", digits(limit));
  const above = scores.filter((one) => one[1] > (state.draft ?? limit)).length;
  text("recent", scores.length ? `${above} of the last ${scores.length} verdicts are above.` : "");
  const highest = Math.max(...scores.map((one) => one[1]));
  text("chart-about", scores.length ? `last ${scores.length} verdicts, highest ${digits(highest)}` : "no verdict yet");
}

function showThreshold(numbers) {
  const threshold = numbers.threshold, slider = byId("slider");
  byId("setting").hidden = !threshold.can_change;
  byId("fixed").hidden = threshold.can_change;
  if (state.draft === null) {
    slider.value = String(Math.round(1000 * place(threshold.value)));
    if (document.activeElement !== byId("value")) byId("value").value = digits(threshold.value);
    predict(threshold.value);
  }
  const lines = threshold.changes.map(
    (one) => `${new Date(one.set_at).toLocaleString()}: ${one.set_by} (${one.option}), ${digits(one.previous)} before`,
  );
  if (byId("changes").dataset.lines !== lines.join("\n")) {
    byId("changes").dataset.lines = lines.join("\n");
    byId("changes").replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  }
}

function place(value) {
  const { lowest, highest } = state.numbers.threshold;
  return (value - lowest) / (highest - lowest);
}

let asked = null, waiting = null;
async function predict(value) {
  // One request at a time, and the last wish wins.
  if (asked === value) return;
  waiting = value;
  if (asked === "busy") return;
  while (waiting !== null) {
    const next = waiting;
    [asked, waiting] = ["busy", null];
    const answer = await ask(`prediction?threshold=${next}`);
    if (answer !== null) showPrediction(next, await answer.json());
    asked = answer === null ? null : next;
  }
}

function showPrediction(value, found) {
  const at = `At ${digits(value)}`;
  text("prediction", found.images === 0
    ? `${at}: the bundle has no scores of good images, so the rate of false alarms is not known.`
    : `${at}: ${found.above} of ${found.images} good images of the build are above, a false-alarm rate of ` +
      `${percent(found.above / found.images)} (${percent(found.low)} to ${percent(found.high)} at ${percent(found.confidence)} confidence).`);
}

function draft(value) {
  state.draft = Number.isFinite(value) && value > 0 && value !== state.numbers.threshold.value ? value : null;
  byId("set").disabled = byId("reset").disabled = state.draft === null;
  text("set", state.draft === null ? "Set" : `Set to ${digits(state.draft)}`);
  if (state.draft !== null) predict(state.draft);
  showChart(state.numbers);
  showThreshold(state.numbers);
}

function showRejects(numbers) {
  byId("no-rejects").hidden = numbers.rejects.length > 0;
  const known = new Map([...byId("rejects").children].map((one) => [one.dataset.key, one]));
  const figures = numbers.rejects.map((reject) => {
    const key = `${numbers.run}-${reject.number}`, figure = known.get(key) ?? newReject(key, reject);
    const part = reject.part_id === null ? `frame ${reject.frame_index}` : reject.part_id;
    const about = `${part}: ${digits(reject.score)} of ${digits(reject.threshold)}, ${span(reject.age_s)} ago`;
    figure.querySelector("figcaption").textContent = about;
    return figure;
  });
  const shown = [...byId("rejects").children];
  if (figures.length !== shown.length || figures.some((one, i) => one !== shown[i])) byId("rejects").replaceChildren(...figures);
}

function newReject(key, reject) {
  const figure = document.createElement("figure"), button = document.createElement("button"), image = document.createElement("img");
  figure.dataset.key = key;
  image.alt = `reject, frame ${reject.frame_index}`;
  image.src = `reject.jpg?number=${reject.number}&key=${key}`;
  button.append(image);
  button.addEventListener("click", () => {
    byId("viewer-image").src = image.src;
    byId("viewer-image").alt = image.alt;
    byId("viewer-text").textContent = figure.querySelector("figcaption").textContent;
    byId("viewer").showModal();
  });
  figure.append(button, document.createElement("figcaption"));
  return figure;
}

function row(values, marked) {
  const row = document.createElement("tr");
  for (const value of values) row.append(Object.assign(document.createElement("td"), { textContent: value }));
  row.children[marked === "last" ? values.length - 1 : 0].classList.toggle("fails", marked !== null);
  return row;
}

function showDrift(numbers) {
  byId("drift-panel").hidden = numbers.drift.length === 0;
  byId("drift").replaceChildren(...numbers.drift.map((one) => {
    const isOut = one.now !== null && (one.now < one.low || one.now > one.high);
    const now = one.now === null ? "-" : `${isOut ? "⚠ " : ""}${digits(one.now)}`;
    return row([one.quantity, `${digits(one.low)} to ${digits(one.high)}`, now], isOut ? "last" : null);
  }));
}

function showSinks(numbers) {
  byId("sinks").replaceChildren(...numbers.sinks.map((sink) => {
    const name = sink.problem === null ? sink.sink : `${sink.sink}: ${sink.problem}`;
    return row([name, sink.written.toLocaleString("en"), sink.lost.toLocaleString("en")], sink.problem === null ? null : "first");
  }));
}

function showVerdict(about) {
  byId("live-empty").hidden = true;
  byId("live-image").hidden = false;
  byId("verdict").className = about.is_anomalous ? "reject" : "good";
  text("verdict", about.is_anomalous ? "reject" : "good");
  text("verdict-score", `${digits(about.score)} of ${digits(about.threshold)}, frame ${about.frame_index}`);
  [state.imageAge, state.imageAt] = [about.age_s, Date.now()];
}

function showAge() {
  if (state.imageAge === null) return;
  const age = state.imageAge + (Date.now() - state.imageAt) / 1000;
  const silent = !["running", "degraded"].includes(state.numbers?.state);
  text("verdict-age", `${span(age)} old`);
  byId("live").classList.toggle("old", age > OLD_S || silent || state.failedAt !== null);
}

async function update() {
  const answer = await ask("numbers");
  if (answer === null) return showAway();
  const numbers = await answer.json();
  if (state.run !== null && state.run !== numbers.run) [state.image, asked] = [0, null];
  [state.run, state.numbers, state.failedAt] = [numbers.run, numbers, null];
  for (const show of [showState, showCounts, showChart, showThreshold, showDrift, showRejects, showSinks]) show(numbers);
}

async function updateImage() {
  const answer = await ask(`live.jpg?after=${state.image}`);
  if (answer === null || answer.status === 204) return;
  const about = JSON.parse(answer.headers.get("X-Verdict")), image = byId("live-image"), before = image.src;
  const loaded = new Promise((done) => (image.onload = image.onerror = done));
  image.src = URL.createObjectURL(await answer.blob());
  await loaded;
  if (before) URL.revokeObjectURL(before);
  state.image = about.number;
  showVerdict(about);
}

async function repeat(work, pause) {
  // A page that nobody sees costs nothing.
  while (true) {
    if (!document.hidden) await work().catch((error) => console.error(error));
    await new Promise((done) => setTimeout(done, state.failedAt === null ? pause : AWAY_MS));
  }
}

byId("name").value = localStorage.getItem("name") ?? "";
byId("name").addEventListener("change", () => localStorage.setItem("name", byId("name").value.trim()));
byId("pause").addEventListener("click", () => state.numbers && change(state.numbers.is_paused ? "resume" : "pause", {}));
byId("slider").addEventListener("input", () => {
  if (state.numbers === null) return;
  const { lowest, highest } = state.numbers.threshold;
  const value = Number((lowest + (highest - lowest) * byId("slider").value / 1000).toPrecision(4));
  byId("value").value = String(value);
  draft(value);
});
byId("value").addEventListener("input", () => {
  const value = Number(byId("value").value);
  if (state.numbers === null) return;
  byId("slider").value = String(Math.round(1000 * place(value)));
  draft(value);
});
byId("reset").addEventListener("click", () => draft(NaN));
byId("set").addEventListener("click", async () => {
  const value = state.draft;
  if (value !== null && await change("threshold", { value })) draft(NaN);
});
repeat(update, NUMBERS_MS);
repeat(updateImage, IMAGE_MS);
setInterval(showAge, 250);
