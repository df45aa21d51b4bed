// Relative times in the reader's zone; the exact one on hover and for screen readers.

const UNITS = [["year", 31557600], ["month", 2629800], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat(navigator.language, { numeric: "auto" });
const exact = new Intl.DateTimeFormat(navigator.language, { dateStyle: "full", timeStyle: "long" });

function show(time) {
  const when = new Date(time.dateTime);
  if (Number.isNaN(when.getTime())) return;
  const seconds = (when.getTime() - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  time.textContent = Math.abs(seconds) < 45 ? "just now" : relative.format(Math.round(seconds / size), unit);
  if (!time.title) time.title = exact.format(when);
}

export function dressTimes(root) {
  for (const time of root.querySelectorAll?.("time[datetime]") ?? []) show(time);
}

setInterval(() => dressTimes(document), 30000);
