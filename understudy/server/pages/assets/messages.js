// Messages on the page: what this reader may do with them, folding of replies, headings that pieces repeat.

const talk = document.getElementById("talk");

function may(article) {
  const { me, model } = document.body.dataset;
  if (!talk?.dataset.post) return false;
  if (article.dataset.author === me) return true;
  const byModel = article.dataset.author === model || article.dataset.kind === "model";
  return Boolean(talk.dataset.teach) && (byModel || !talk.dataset.restricted);
}

export function below(article) {
  const found = [];
  const depth = Number(article.dataset.depth);
  for (let next = article.nextElementSibling; next; next = next.nextElementSibling) {
    if (next.classList.contains("speech")) continue;
    if (!next.classList.contains("message") || Number(next.dataset.depth) <= depth) break;
    found.push(next);
  }
  return found;
}

function fold(article, closed) {
  const button = article.querySelector(":scope > .who > .fold");
  button.setAttribute("aria-expanded", String(!closed));
  const replies = below(article);
  for (const reply of replies) reply.hidden = closed;
  if (!closed) { // what is folded further down stays so
    for (const reply of replies) {
      if (reply.querySelector(":scope > .who > .fold[aria-expanded=false]")) below(reply).forEach((one) => { one.hidden = true; });
    }
  }
  label(button, replies.length, closed);
}

function label(button, count, closed) {
  button.textContent = `${closed ? "Show" : "Hide"} ${count} ${count === 1 ? "reply" : "replies"}`;
}

export function dressFolds() {
  for (const article of document.querySelectorAll(".message")) {
    const who = article.querySelector(":scope > .who"), replies = below(article).length;
    let button = who.querySelector(":scope > .fold");
    if (!replies) { button?.remove(); continue; }
    if (!button) {
      button = Object.assign(document.createElement("button"), { type: "button", className: "fold quiet" });
      button.setAttribute("aria-expanded", "true");
      button.addEventListener("click", () => fold(article, button.getAttribute("aria-expanded") === "true"));
      who.append(button);
    }
    label(button, replies, button.getAttribute("aria-expanded") === "false");
  }
}

export function dressMessages(root) {
  if (!talk) return;
  const articles = root.matches?.(".message") ? [root] : root.querySelectorAll?.(".message") ?? [];
  for (const article of articles) {
    const actions = article.querySelector(":scope > .actions");
    if (!actions) continue;
    actions.hidden = !talk.dataset.post;
    actions.querySelector("[data-needs=change]").hidden = !may(article);
  }
  for (const actions of root.querySelectorAll?.(".thread .actions") ?? []) {
    actions.hidden = !talk.dataset.post;
    actions.querySelector("[data-needs=moderate]").hidden = !talk.dataset.moderate;
  }
  for (const piece of document.querySelectorAll(".piece")) {
    const rows = [...piece.children];
    piece.replaceWith(...rows);
  }
  const messages = document.getElementById("messages"); // pieces that came above or below stand in it
  const strays = [...document.querySelectorAll("#talk > .message, #talk > .thread")];
  const earlier = strays.filter((one) => one.compareDocumentPosition(messages) & Node.DOCUMENT_POSITION_FOLLOWING);
  messages.prepend(...earlier);
  messages.append(...strays.filter((one) => !earlier.includes(one)));
  const seen = new Set();
  for (const heading of document.querySelectorAll("#messages > .thread")) {
    if (seen.has(heading.dataset.thread)) heading.remove();
    seen.add(heading.dataset.thread);
  }
  dressFolds();
}
