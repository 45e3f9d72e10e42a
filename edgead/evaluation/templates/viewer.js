"use strict";

// The enlarged image: image, heat map and mask side by side. Escape closes it, the arrow keys go to the next image of
// the table.

if (byId("viewer")) {
  const viewer = byId("viewer");
  let list = [];
  let place = 0;

  const show = () => {
    const image = list[place];
    const [plain, heatMap, mask] = layersOf(image.number);
    byId("viewer-name").textContent = image.name;
    const score = image.score === null ? "not finite" : image.score.toPrecision(4);
    const kind = image.row.querySelector(".kind").textContent;
    byId("viewer-text").textContent = [kind, `score ${score}`, image.outcome].filter(Boolean).join(", ");
    byId("viewer-place").textContent = `${place + 1} of ${list.length}`;
    byId("viewer-previous").disabled = place === 0;
    byId("viewer-next").disabled = place === list.length - 1;
    setImage("viewer-image", plain, image.name);
    setImage("viewer-heat-map", heatMap, `heat map of ${image.name}`);
    setImage("viewer-mask", mask, `mask of ${image.name}`);
    byId("viewer-mask").hidden = mask === null;
    byId("viewer-mask-text").textContent = mask === null ? "no mask" : "mask of the true defect";
  };

  const setImage = (id, uri, text) => {
    if (uri) byId(id).src = uri; else byId(id).removeAttribute("src");
    byId(id).alt = text;
  };

  const open = (number) => {
    const withLayers = (chosen) => chosen.filter((image) => byId(`layers-${image.number}`));
    list = withLayers(shownImages);
    place = list.findIndex((image) => image.number === number);
    if (place < 0) {
      // An image of a gallery that the filters of the table leave out.
      list = withLayers([...images.values()]);
      place = list.findIndex((image) => image.number === number);
    }
    if (place < 0) return;
    show();
    viewer.showModal();
  };

  const go = (step) => {
    if (place + step < 0 || place + step >= list.length) return;
    place += step;
    show();
  };

  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("viewer-previous").addEventListener("click", () => go(-1));
  byId("viewer-next").addEventListener("click", () => go(1));
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  // A click beside the dialog closes it.
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

  // In a gallery, the pair of images becomes a button.
  for (const pair of document.querySelectorAll(".card[data-image] .pair")) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `enlarge ${images.get(pair.closest(".card").dataset.image).name}`);
    pair.before(button);
    button.append(pair);
  }
  document.addEventListener("click", (event) => {
    const owner = event.target.closest(".thumb button, .card button")?.closest("[data-image]");
    if (owner) open(owner.dataset.image);
  });
}
