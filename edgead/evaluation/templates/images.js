"use strict";

// The table of all images: sorting, filters, and heat maps that are read when their row comes into view.

const layersOf = (number) => {
  const element = byId(`layers-${number}`);
  return element ? JSON.parse(element.textContent) : null;
};

// The images in the order and the choice of the table.
let shownImages = [...images.values()];

{
  const body = document.querySelector("#images tbody");
  const headings = [...document.querySelectorAll("#images th[data-sort]")];
  const byText = new Intl.Collator("en", { numeric: true }).compare;
  const orders = {
    name: (a, b) => byText(a.name, b.name),
    kind: (a, b) => a.kind - b.kind,
    // A score that is not finite comes before all others.
    score: (a, b) => (a.score ?? -Infinity) - (b.score ?? -Infinity) || 0,
    outcome: (a, b) => byText(a.outcome, b.outcome),
  };
  let ordered = [...images.values()];

  const filter = () => {
    const name = byId("filter-name").value.trim().toLowerCase();
    const kind = byId("filter-kind").value;
    const outcome = byId("filter-outcome")?.value ?? "";
    shownImages = [];
    for (const image of ordered) {
      const fits = image.name.toLowerCase().includes(name) && (kind === "" || image.kind === Number(kind)) &&
        (outcome === "" || (outcome === "wrong" ? image.right === false : image.outcome === outcome));
      image.row.hidden = !fits;
      if (fits) shownImages.push(image);
    }
    const text = `${shownImages.length} of ${images.size} images`;
    if (byId("shown").textContent !== text) byId("shown").textContent = text;
  };

  const arrange = () => {
    const heading = headings.find((each) => each.hasAttribute("aria-sort"));
    const sign = heading.getAttribute("aria-sort") === "ascending" ? 1 : -1;
    ordered.sort((a, b) => sign * orders[heading.dataset.sort](a, b));
    body.append(...ordered.map((image) => image.row));
    filter();
  };

  const sort = (heading) => {
    // Scores and decisions are of most interest from the end.
    const first = heading.dataset.sort === "score" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const direction = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    arrange();
  };

  for (const heading of headings) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(heading));
    heading.replaceChildren(button);
  }
  byId("filter-name").addEventListener("input", filter);
  for (const id of ["filter-kind", "filter-outcome"]) byId(id)?.addEventListener("change", filter);
  // A new threshold changes the order by decision, and no other.
  document.addEventListener("decisions", () => {
    if (headings.some((each) => each.dataset.sort === "outcome" && each.hasAttribute("aria-sort"))) arrange();
    else filter();
  });
  // A browser keeps the text of fields when a page is loaded again.
  window.addEventListener("pageshow", filter);

  const inView = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      inView.unobserve(entry.target);
      const number = entry.target.dataset.image;
      const layers = layersOf(number);
      if (!layers) continue;
      const image = new Image();
      image.src = layers[1];
      image.alt = "";
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `enlarge ${images.get(number).name}`);
      button.append(image);
      entry.target.querySelector(".thumb").append(button);
    }
  }, { rootMargin: "600px" });
  for (const image of images.values()) if (image.row.querySelector(".thumb")) inView.observe(image.row);
}
