"use strict";

// The threshold explorer: decides again on every image with the threshold of the slider, and writes counts, marks and
// the command. The rule is in edgead/scoring/decision.py, too: a score greater than the threshold is anomalous.

const byId = (id) => document.getElementById(id);

// One object for each row of the table of images, by the number of the image.
const images = new Map();
for (const row of document.querySelectorAll("#images tbody tr")) {
  const mark = row.querySelector(".mark");
  images.set(row.dataset.image, {
    number: row.dataset.image,
    row,
    name: row.querySelector(".name").textContent,
    kind: Number(row.dataset.kind),
    label: row.dataset.label === "" ? null : Number(row.dataset.label),
    score: row.dataset.score === "" ? null : Number(row.dataset.score),
    shareCell: row.querySelector("td.share"),
    marks: [],
    outcome: mark?.textContent ?? "",
    right: mark?.matches(".right") ? true : mark?.matches(".wrong") ? false : null,
  });
}

// The marks of the rows, and of the cards in the galleries.
for (const mark of document.querySelectorAll("[data-image] .mark")) {
  images.get(mark.closest("[data-image]").dataset.image).marks.push(mark);
}

// Elements that need the script are hidden until here.
for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;

if (byId("explorer")) startExplorer();

function startExplorer() {
  const plot = byId("explorer").dataset;
  const [model, low, high] = [Number(plot.threshold), Number(plot.low), Number(plot.high)];
  const steps = Number(byId("slider").max);
  const all = [...images.values()];
  const good = all.filter((image) => image.label === 0);
  const defects = all.filter((image) => image.label === 1);
  const candidates = candidateThresholds([...new Set(all.map((image) => image.score))].sort((a, b) => a - b));
  let threshold = model;

  function show(value) {
    threshold = value;
    for (const image of all) markImage(image, value);
    const found = defects.filter((image) => image.score > value).length;
    const alarms = good.filter((image) => image.score > value).length;
    showCounts(found, defects.length, alarms, good.length);
    showConfusion(all, value);
    const sentence = `At the threshold ${significant(value)}, ${found} of ${defects.length} defects are found and ` +
      `${alarms} of ${good.length} good parts rejected.`;
    byId("sentence").textContent = sentence;
    byId("slider").setAttribute("aria-valuetext", significant(value));
    byId("slider").value = Math.round((value - low) / (high - low) * steps);
    byId("value").value = value;
    byId("value").removeAttribute("aria-invalid");
    const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * 1000;
    byId("cut").setAttribute("transform", `translate(${place})`);
    byId("rejected-area").setAttribute("x", place);
    const command = byId("command");
    if (command) {
      command.textContent = value > 0 ? `${command.dataset.setter} --value ${value}` : "A threshold of a bundle is above 0.";
    }
    document.dispatchEvent(new Event("decisions"));
  }

  function ofRule(rule) {
    if (rule === "model") return model;
    const points = candidates.map((value) => ({
      value,
      found: defects.filter((image) => image.score > value).length,
      alarms: good.filter((image) => image.score > value).length,
    }));
    if (rule === "recall") return points.findLast((point) => point.found === defects.length).value;
    if (rule === "alarms") return points.find((point) => point.alarms === 0).value;
    const f1 = (point) => 2 * point.found / (point.found + point.alarms + defects.length);
    // Of equal ones, the one with the fewest false alarms, as edgead threshold --best-f1 chooses.
    return points.reduce((best, point) => (f1(point) >= f1(best) ? point : best)).value;
  }

  // As many decimals as the slider can tell apart, so the command is short and decides as the page shows.
  const decimals = Math.min(Math.max(Math.ceil(-Math.log10((high - low) / steps)), 0), 20);
  byId("slider").addEventListener("input", (event) => {
    show(Number((low + (high - low) * event.target.value / steps).toFixed(decimals)));
  });
  byId("value").addEventListener("change", (event) => {
    const value = event.target.valueAsNumber;
    if (Number.isFinite(value)) show(value); else event.target.setAttribute("aria-invalid", "true");
  });
  const next = (step) => {
    // The candidates lie between the scores, so from any threshold the next one changes the decision on a score.
    const above = all.filter((image) => image.score > threshold).length;
    const other = (value) => all.filter((image) => image.score > value).length !== above;
    const beyond = candidates.filter((value) => (value - threshold) * step > 0 && other(value));
    if (beyond.length) show(step > 0 ? beyond[0] : beyond[beyond.length - 1]);
  };
  byId("lower").addEventListener("click", () => next(-1));
  byId("higher").addEventListener("click", () => next(1));
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => show(ofRule(button.dataset.preset)));
  }
  const bar = byId("threshold-bar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
}

// One threshold for each set of decisions: below all scores, between each two of them, above all.
function candidateThresholds(scores) {
  const [first, last] = [scores[0], scores[scores.length - 1]];
  const step = (last - first || Math.abs(last) || 1) / 100;
  const between = scores.slice(1).map((score, i) => shortBetween(scores[i], score));
  return [shortBetween(first > 0 ? first / 2 : first - step, first), ...between, shortBetween(last, last + step)];
}

// The number with the fewest digits from `low` on and below `high`: both decide alike, and a person can type it.
function shortBetween(low, high) {
  const middle = low + (high - low) / 2;
  for (let digits = 2; digits < 17; digits++) {
    const value = Number(middle.toPrecision(digits));
    if (low < value && value < high) return value;
  }
  return low;
}

function outcomeOf(label, isAnomalous) {
  if (label === null) return isAnomalous ? "rejected" : "passed";
  if (label === 1) return isAnomalous ? "found" : "missed";
  return isAnomalous ? "false alarm" : "passed";
}

function markImage(image, threshold) {
  const isAnomalous = image.score > threshold;
  image.right = image.label === null ? null : isAnomalous === (image.label === 1);
  const outcome = outcomeOf(image.label, isAnomalous);
  image.shareCell.textContent = threshold > 0 ? (image.score / threshold).toFixed(3) : "-";
  if (outcome === image.outcome) return;
  image.outcome = outcome;
  for (const mark of image.marks) {
    mark.textContent = outcome;
    mark.className = `mark ${image.right === null ? "quiet" : image.right ? "right" : "wrong"}`;
  }
}

function showCounts(found, nDefects, alarms, nGood) {
  const write = (id, text) => { if (byId(id)) byId(id).textContent = text; };
  const writeShare = (id, count, n) => {
    write(id, n ? (count / n).toFixed(3) : "-");
    write(`${id}-interval`, n ? `95 % interval ${clopperPearson(count, n).map((x) => x.toFixed(3)).join(" to ")}` : "");
  };
  write("found", found);
  write("missed", nDefects - found);
  write("false-alarms", alarms);
  writeShare("recall", found, nDefects);
  writeShare("precision", found, found + alarms);
  writeShare("false-alarm-rate", alarms, nGood);
}

function showConfusion(all, threshold) {
  for (const row of document.querySelectorAll("#confusion tbody tr")) {
    const kinds = new Set(row.dataset.kinds.split(" ").map(Number));
    const own = all.filter((image) => kinds.has(image.kind));
    const rejected = own.filter((image) => image.score > threshold).length;
    row.querySelector(".rejected").textContent = rejected;
    row.querySelector(".passed").textContent = own.length - rejected;
    row.querySelector(".share").textContent = (rejected / own.length).toFixed(3);
  }
}

function significant(value) {
  return String(Number(value.toPrecision(4)));
}
