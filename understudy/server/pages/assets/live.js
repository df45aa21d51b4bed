// What is new in the conversation, as it happens. An event's id is its commit: after a lost connection the
// browser names the last one it saw, and the server tells what was missed.

import { dressTimes } from "./times.js";
import { dressMessages } from "./messages.js";
import { draftsOf } from "./drafts.js";
import { toast } from "./toasts.js";

const parse = (html) => document.createRange().createContextualFragment(html.trim()).firstElementChild;
let talk, messages, source, last, refreshing = false;

const url = (path, query) => `${path}?${new URLSearchParams({ file: talk.dataset.file, ...query })}`;

function put(element, place) {
  place(element);
  htmx.process(element);
  dressTimes(element);
  dressMessages(element);
}

function keepSlot(old, fresh) {
  const open = old.querySelector(":scope > .slot"), slot = fresh.querySelector(":scope > .slot");
  if (open?.childNodes.length && slot) slot.replaceWith(open); // somebody writes there
}

function add(one) {
  if (document.getElementById(one.id)) return;
  const element = parse(one.html);
  const previous = one.after && document.getElementById(one.after);
  if (one.opens) {
    if (one.after && !previous) return missed(one);
    const heading = document.querySelector(`.thread[data-thread="${one.thread}"]`) ?? parse(one.heading);
    if (!heading.isConnected) put(heading, (made) => (previous ? previous.after(made) : messages.append(made)));
    put(element, (made) => heading.after(made));
  } else {
    if (!previous) return missed(one);
    put(element, (made) => previous.after(made));
  }
  element.classList.add("fresh");
  document.querySelector(`.speech[data-message="${one.to}"]`)?.remove();
  if (one.author === document.body.dataset.me) {
    element.scrollIntoView({ block: "nearest" });
    element.focus({ preventScroll: true });
  }
}

// Its place is in a part that the page does not show; one's own message is gone to.
function missed(one) {
  if (one.author === document.body.dataset.me) { location.href = `${location.pathname}?at=${one.id}#${one.id}`; return; }
  const later = document.getElementById("later");
  if (!later) { refresh(); return; }
  later.textContent = "There are new messages below";
}

function replace(one) {
  const old = document.getElementById(one.id);
  if (!old) return;
  const fresh = parse(one.html);
  keepSlot(old, fresh);
  put(fresh, (made) => old.replaceWith(made));
  fresh.classList.add("fresh");
}

// The whole page anew where single changes do not tell it: after moves, or where too much was missed.
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  try {
    const answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("talk");
    if (!fresh) { location.reload(); return; }
    const open = [...talk.querySelectorAll(".slot")].filter((slot) => slot.childNodes.length);
    talk.replaceChildren(...document.adoptNode(fresh).childNodes);
    messages = document.getElementById("messages");
    for (const slot of open) document.getElementById(slot.id)?.replaceWith(slot);
    htmx.process(talk);
    dressTimes(talk);
    dressMessages(talk);
  } finally {
    refreshing = false;
  }
}

function changes(event) {
  const told = JSON.parse(event.data);
  if (event.lastEventId) last = event.lastEventId;
  if (told.refresh) refresh();
  for (const one of told.edited ?? []) replace(one);
  for (const one of told.added ?? []) add(one);
  for (const id of told.removed ?? []) document.getElementById(id)?.remove();
  if (told.removed?.length) dressMessages(talk);
  read();
}

function speech(event) {
  const told = JSON.parse(event.data);
  let shown = document.querySelector(`.speech[data-key="${told.key}"]`);
  if (told.ended) {
    if (told.kind !== "answer" || told.failure) shown?.remove();
    else shown?.querySelector("button")?.remove(); // the message itself follows
    if (told.failure) document.querySelector(`.speech[data-message="${told.message}"]`)?.remove();
    if (told.failure) toast(`The model could not answer: ${told.failure}`);
    return;
  }
  const about = document.getElementById(told.message);
  if (!about) return;
  if (!shown) {
    shown = parse(`<section class="speech message model" aria-label="The model is speaking"><header class="who"><strong class="name"></strong>
      <span class="badge model">model</span> <span>is speaking</span></header><div class="columns"></div>
      <div class="actions"><button type="button" class="small">Stop</button></div></section>`);
    shown.dataset.key = told.key;
    shown.dataset.message = told.kind === "answer" ? told.message : "";
    shown.querySelector(".name").textContent = `@${document.body.dataset.model}`;
    const button = shown.querySelector("button");
    button.hidden = !talk.dataset.post;
    button.addEventListener("click", () => post("/do/stop", { key: told.key }));
    const depth = Math.min(Number(about.dataset.depth) + (told.kind === "answer" ? 1 : 0), 6);
    shown.classList.add(`d-${depth}`);
    let place = about;
    if (told.kind === "answer") {
      for (let next = about.nextElementSibling; next?.matches(".message") && Number(next.dataset.depth) > Number(about.dataset.depth); next = next.nextElementSibling) place = next;
    }
    place.after(shown);
  }
  const columns = shown.querySelector(".columns");
  told.texts.forEach((text, number) => {
    const column = columns.children[number] ?? columns.appendChild(Object.assign(document.createElement("div"), { className: "body", dir: "auto" }));
    column.textContent = text;
  });
}

async function post(path, fields) {
  const given = new URLSearchParams({ file: talk.dataset.file, csrf: document.body.dataset.csrf, ...fields });
  const answer = await fetch(path, { method: "POST", body: given, headers: { Accept: "application/json" } }).catch(() => null);
  if (answer && !answer.ok) toast((await answer.json()).error.message);
  return Boolean(answer?.ok); // away: the badge says so, and it comes back
}

let reading;
function read() {
  if (!document.body.dataset.me || document.hidden) return;
  clearTimeout(reading);
  reading = setTimeout(() => post("/do/read", { commit: last }), 600);
}

function state(text, good) {
  const badge = document.getElementById("live-state");
  badge.textContent = text;
  badge.classList.toggle("good", good);
}

function connect() {
  source?.close();
  const name = talk.dataset.name.split("/").map(encodeURIComponent).join("/");
  source = new EventSource(`/live/${name}?since=${last}`);
  source.addEventListener("hello", () => state("live", true));
  source.addEventListener("changes", changes);
  source.addEventListener("refresh", (event) => { if (event.lastEventId) last = event.lastEventId; refresh(); });
  source.addEventListener("speech", speech);
  source.addEventListener("error", () => {
    state("reconnecting", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1500);
  });
}

// A message that a link names and this part of the page lacks.
function seek() {
  const id = location.hash.slice(1);
  if (!/^[0-9a-f]{8,64}$/.test(id) || document.getElementById(id)) return;
  location.replace(`/m/${talk.dataset.name.split("/").map(encodeURIComponent).join("/")}/${id}`);
}

function reopen() {
  for (const draft of draftsOf(talk.dataset.file)) {
    const slot = document.getElementById(`s-${draft.about}`);
    if (slot && ["reply", "edit"].includes(draft.kind)) htmx.ajax("GET", url("/part/editor", { kind: draft.kind, id: draft.about }), { target: slot, swap: "innerHTML" });
  }
}

export function follow(root) {
  talk = root;
  messages = document.getElementById("messages");
  last = talk.dataset.commit;
  seek();
  addEventListener("hashchange", seek);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source.close(); state("paused", false); } else { connect(); read(); }
  });
  connect();
  read();
  reopen();
}
