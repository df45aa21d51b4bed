// What is being written survives a reload, a lost connection and a conflict: it is kept in this browser until
// it was sent.

const PREFIX = "understudy draft ";
const me = document.body.dataset.me;

const place = (draft) => `${PREFIX}${me} ${draft}`;

function fields(form) {
  return [...form.elements].filter((one) => ["body", "title", "name"].includes(one.name) && one.type !== "hidden");
}

export function dropDraft(draft) {
  localStorage.removeItem(place(draft));
}

export function keepDrafts(root) {
  const own = root.matches?.("form[data-draft]") ? [root] : [];
  for (const form of [...own, ...root.querySelectorAll?.("form[data-draft]") ?? []]) {
    if (form.dataset.kept) continue;
    form.dataset.kept = "1";
    const key = place(form.dataset.draft);
    const held = JSON.parse(localStorage.getItem(key) ?? "null");
    for (const field of held && !form.classList.contains("conflict") ? fields(form) : []) {
      if (typeof held[field.name] === "string" && !field.readOnly) field.value = held[field.name];
    }
    form.addEventListener("input", () => {
      const written = Object.fromEntries(fields(form).map((field) => [field.name, field.value]));
      try {
        localStorage.setItem(key, JSON.stringify({ ...written, kind: form.dataset.kind, about: form.dataset.about }));
      } catch { /* the browser keeps nothing: the text still stands in the form */ }
    });
    const text = form.querySelector("textarea"); // restored, or typed before this ran: its preview is due
    if (text && text.value !== text.defaultValue) text.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

// The drafts of a conversation: what to open again after a reload.
export function draftsOf(file) {
  const found = [];
  for (let number = 0; number < localStorage.length; number += 1) {
    const key = localStorage.key(number);
    if (!key.startsWith(`${PREFIX}${me} `)) continue;
    const held = JSON.parse(localStorage.getItem(key));
    if (key === place(`${held.kind} ${file} ${held.about}`) && held.body?.trim()) found.push(held);
  }
  return found;
}
