// Replaces each drawing by a live chart: figures under the pointer, zoom by wheel, pan by dragging.
"use strict";
(() => {
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    // The page's policy forbids code made from text; the interpreter walks the parsed expression.
    ast: true,
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    logLevel: 1,
  };
  for (const data of document.querySelectorAll('.panel script[type="application/json"]')) {
    const drawing = data.parentElement.querySelector(".drawing");
    const live = document.createElement("div");
    vegaEmbed(live, JSON.parse(data.textContent), options).then(() => {
      const old = drawing.querySelector("svg");
      const fresh = live.querySelector("svg");
      fresh.setAttribute("role", "img");
      fresh.setAttribute("aria-label", [...old.querySelectorAll("title, desc")].map((node) => node.textContent).join(": "));
      drawing.replaceChildren(live);
    }, (error) => console.error(error));
  }
})();
