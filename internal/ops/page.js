"use strict";
// Fetches the page again and puts its new content in place of the old. It waits
// while nobody looks and while text is selected.
const pause = 2000;

async function refresh() {
  if (document.hidden || !getSelection().isCollapsed) return;
  const page = document.getElementById("page");
  try {
    const response = await fetch(location.href, {
      headers: { Accept: "text/html" },
      cache: "no-store",
      signal: AbortSignal.timeout(8000),
    });
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    const content = next.getElementById("page");
    if (!content) throw new Error("not a status page");
    mark(page, content);
    page.replaceWith(content);
    document.title = next.title;
  } catch {
    page.classList.add("stale");
    page.querySelector(".lost").textContent = "connection lost, trying again";
  }
}

// Marks the cells whose text is new, as long as the tables have kept their form.
function mark(page, content) {
  const cells = "tbody th, tbody td";
  const before = page.querySelectorAll(cells);
  const after = content.querySelectorAll(cells);
  if (before.length !== after.length) return;
  after.forEach((cell, i) => {
    if (cell.textContent !== before[i].textContent) cell.classList.add("changed");
  });
}

async function run() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    await refresh();
  }
}
run();
