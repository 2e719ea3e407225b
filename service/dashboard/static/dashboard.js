// Makes pages live. Without it everything works; one loads the page again to see what has changed.
"use strict";

// The graph of stages begins where something goes on.
const bring = (place) => {
  const [graph, stage] = [place.querySelector(".graph .wide"), place.querySelector(".way .running, .way .failed")];
  if (graph && stage) graph.scrollLeft = stage.getBBox().x - graph.clientWidth / 2;
};
bring(document);

// A part of the page that the server sends whole at each change. What a person has opened in it stays open, and nothing moves under a form in use.
for (const place of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(place.dataset.live);
  const open = () => new Map([...place.querySelectorAll("[data-keep]")].map((each) => [each.dataset.keep, [each.open, each.querySelector(".wide")?.scrollLeft || 0]]));
  source.addEventListener("fragment", (event) => {
    const before = open();
    place.innerHTML = event.data;
    for (const each of place.querySelectorAll("[data-keep]")) {
      const [was, left] = before.get(each.dataset.keep) || [false, 0];
      each.open = was;
      if (left) each.querySelector(".wide").scrollLeft = left;
    }
  });
  source.addEventListener("end", () => {
    source.close();
    const writing = document.querySelector("main form :focus, main details.ask[open]");
    if ("reload" in place.dataset && !writing) location.reload();
  });
}

// A log that grows; it is kept at its end unless a person reads further up.
for (const log of document.querySelectorAll("[data-log]")) {
  const source = new EventSource(log.dataset.log);
  let first = true;
  source.addEventListener("log", (event) => {
    const below = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (first) log.textContent = "";
    log.append(event.data);
    if (below || first) log.scrollTop = log.scrollHeight;
    first = false;
  });
  source.addEventListener("end", () => source.close());
  log.scrollTop = log.scrollHeight;
}
for (const log of document.querySelectorAll("pre[data-end]")) log.scrollTop = log.scrollHeight;
