// What a page does beyond links and forms: relative times, folding, drafts, live messages, toasts.
// Everything works without it, only less conveniently.

import { dressTimes } from "./times.js";
import { dressMessages } from "./messages.js";
import { keepDrafts, dropDraft } from "./drafts.js";
import { toast } from "./toasts.js";
import { follow } from "./live.js";

const body = document.body;

function dress(root) {
  dressTimes(root);
  dressMessages(root);
  keepDrafts(root);
}

function closeSlot(from) {
  const slot = from.closest(".slot");
  if (!slot) return false;
  const home = slot.closest(".message, .thread, main"), at = document.activeElement;
  const elsewhere = at && at !== body && !slot.contains(at); // on the new message, where that came first
  slot.replaceChildren();
  if (!elsewhere) home?.focus?.({ preventScroll: true });
  return true;
}

// A page's secret stands in every request that changes something. Who asks is listened to, not the body: what was
// asked for may come over /live first and take the asker off the page, and then no event of it reaches the body.
const answers = { "understudy:done": done, "htmx:responseError": refused, "htmx:sendError": unanswered };
body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = body.dataset.csrf;
  for (const name of Object.keys(answers)) event.target.addEventListener(name, hear);
});

function hear(event) {
  if (event.target === event.currentTarget) answers[event.type](event); // not what another asker in it was told
}

function refused(event) {
  const text = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html").body.textContent.trim();
  toast(text || `The server answered ${event.detail.xhr.status}.`);
}

function unanswered() {
  toast("The server does not answer. What you wrote is kept.");
}

body.addEventListener("htmx:load", (event) => dress(event.target));

body.addEventListener("htmx:afterSwap", (event) => {
  const slot = event.target;
  if (slot.classList?.contains("slot")) {
    slot.querySelector("[autofocus], textarea, input:not([type=hidden]), .button, button")?.focus();
    const done = slot.querySelector("[data-done]");
    if (done) dropDraft(`edit ${document.getElementById("talk")?.dataset.file} ${done.dataset.done}`);
  }
});

// A session has ended: the lessons on the page are shown as they are now, unless somebody is choosing some.
let ended = "";
body.addEventListener("htmx:afterSettle", () => {
  const notice = document.querySelector("#progress [id^=ended-]"), lessons = document.getElementById("lessons-now");
  if (!notice || !lessons || notice.id === ended) return;
  ended = notice.id;
  const busy = lessons.querySelector("input[name=ids]:checked") || lessons.contains(document.activeElement);
  if (!busy) htmx.ajax("GET", location.href, { target: lessons, select: "#lessons-now", swap: "outerHTML" });
});

// An action is done: its form goes, its draft too, and what can be undone says so.
function done(event) {
  const told = event.detail, form = event.target.closest("form");
  if (form?.dataset.draft) dropDraft(form.dataset.draft);
  if (!event.target.closest(".lesson-preview")) closeSlot(event.target); // that one shows what became of it
  if (form?.dataset.kind === "start") {
    const name = form.elements.name.value.trim();
    location.href = `/talk/${name.split("/").map(encodeURIComponent).join("/")}?at=${told.message}#${told.message}`;
    return;
  }
  if (told.undo) {
    toast("Deleted.", "Undo", async () => {
      const fields = new URLSearchParams({ ...told.undo, csrf: body.dataset.csrf });
      const answer = await fetch("/do/restore", { method: "POST", body: fields, headers: { Accept: "application/json" } }).catch(() => null);
      if (!answer) toast("The server does not answer. Try again later: its history has the message.");
      else toast(answer.ok ? "It is back." : (await answer.json()).error.message);
    });
  }
}

document.addEventListener("click", (event) => {
  const close = event.target.closest("[data-close]");
  if (close && close.closest(".slot")) {
    event.preventDefault();
    const draft = close.closest("form")?.dataset.draft;
    if (draft && close.dataset.close === "discard") dropDraft(draft);
    closeSlot(close);
  }
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    event.preventDefault();
    navigator.clipboard?.writeText(new URL(copy.dataset.copy, location.href).href)
      .then(() => toast("The link is copied."), () => { location.href = copy.dataset.copy; });
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.closest("form.editor")?.requestSubmit();
  if (event.key === "Escape" && event.target.closest(".slot")) closeSlot(event.target);
});

dress(document);
const talk = document.getElementById("talk");
if (talk) follow(talk);
