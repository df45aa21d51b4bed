// Short messages at the foot of the page, read out by screen readers.

const SECONDS = 12;

export function toast(text, label, act) {
  const shown = document.createElement("div");
  shown.className = "toast";
  shown.append(Object.assign(document.createElement("span"), { textContent: text }));
  if (label) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", () => { shown.remove(); act(); });
    shown.append(button);
  }
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), SECONDS * 1000);
}
