// Sorting, filtering and copying of tables. The page is complete without it.
"use strict";
(() => {
  const main = (cell) =>
    [...cell.childNodes].filter((node) => !["I", "B", "SMALL"].includes(node.nodeName)).map((node) => node.textContent).join("").trim();
  const number = (text) => (/^-?[\d,.]+(e[+-]?\d+)?$/i.test(text) ? Number(text.replaceAll(",", "")) : NaN);
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  function sort(body, column, numeric, direction) {
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column] && row.cells[column].colSpan === 1 ? main(row.cells[column]) : "";
      return { row, text, value: number(text) };
    });
    // What has no figure stays at the end whichever way the rest is turned.
    keyed.sort((a, b) => {
      const missing = numeric ? Number.isNaN(a.value) - Number.isNaN(b.value) : (a.text === "") - (b.text === "");
      if (missing) return missing;
      if (numeric) return Number.isNaN(a.value) ? 0 : direction * (a.value - b.value);
      return direction * a.text.localeCompare(b.text, "en", { numeric: true });
    });
    body.append(...keyed.map((entry) => entry.row));
  }

  function csv(table) {
    const head = table.tHead.rows[0];
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const columns = [...head.cells].map((cell, index) => ({
      name: (cell.querySelector(".sort") || cell).textContent.trim().replace(/\s+/g, " "),
      interval: rows.some((row) => row.cells[index] && row.cells[index].querySelector("i")),
      numeric: cell.classList.contains("n"),
    }));
    const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    // A spreadsheet would run a text that begins like a formula.
    const safe = (text) => (/^[\s]*[=+\-@\t\r＝＋－＠]/.test(text) && Number.isNaN(number(text)) ? `'${text}` : text);
    const line = (cells) => cells.map((text) => quote(safe(text))).join(",");
    const title = columns.flatMap(({ name, interval }) => (interval ? [name, `${name} ± half of the 95% interval`] : [name]));
    const lines = rows.map((row) =>
      columns.flatMap(({ interval, numeric }, index) => {
        const cell = row.cells[index];
        let text = cell ? main(cell) : "";
        if (text === "–") text = "";
        if (numeric && !Number.isNaN(number(text))) text = text.replaceAll(",", "");
        const mark = cell && cell.querySelector("i");
        return interval ? [text, mark ? mark.textContent.replace("±", "") : ""] : [text];
      })
    );
    return [title, ...lines].map(line).join("\n") + "\n";
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", text, { class: "skip" });
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const caption = table.caption.textContent;
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = make("button", "", { type: "button", class: "sort", title: "Sort" });
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const up = cell.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(body, column, cell.classList.contains("n"), up ? 1 : -1);
      });
    });
    const tools = make("div", "", { class: "tools" });
    const count = make("span", "", { role: "status" });
    const button = make("button", "Copy as CSV", { type: "button" });
    button.addEventListener("click", async () => {
      count.textContent = (await copy(csv(table))) ? "copied" : "the browser did not allow copying";
    });
    if (body.rows.length > 5) {
      const filter = make("input", "", { type: "search", placeholder: "Filter rows", "aria-label": `Filter: ${caption}` });
      filter.addEventListener("input", () => {
        const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
        let shown = 0;
        for (const row of body.rows) {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
          if (!row.hidden) shown += 1;
        }
        count.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
      });
      tools.append(filter);
    }
    tools.append(button, count);
    table.closest(".scroll").before(tools);
  }
})();
