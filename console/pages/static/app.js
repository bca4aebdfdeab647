// What makes a page live and quick to work in. Every page works without it; nothing here decides or sends anything by itself.

const EARLIEST = 400; // Milliseconds between two looks, however much happens.
const AGAIN = 5_000; // Milliseconds until a refused stream is asked for again.
const CHUNKS = 500; // Pieces of a job's output that a page keeps; the file has all of it.
const SILENT = 20_000; // Milliseconds without a word after which a page no longer calls itself live.
const UNITS = [[86_400, "d"], [3_600, "h"], [60, "min"]];

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Times ------------------------------------------------------------------------------------------

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const at = UNITS.findIndex(([size]) => whole >= size);
  const [size, unit] = UNITS[at];
  const rest = whole % size;
  const [smaller, name] = size === 60 ? [1, "s"] : UNITS[at + 1];
  const below = rest >= smaller ? ` ${Math.floor(rest / smaller)} ${name}` : "";
  return `${Math.floor(whole / size)} ${unit}${below}`;
}

const short = (seconds) => span(seconds).split(" ").slice(0, 2).join(" ");

function ticked(kind, seconds) {
  if (kind === "left") return seconds < 0 ? `${span(-seconds)} left` : "time is up";
  return seconds >= 0 ? `${short(seconds)} ago` : `in ${short(-seconds)}`;
}

// The server's clock tells; a reader's own may be wrong.
const skew = Date.now() - Date.parse(document.documentElement.dataset.now ?? new Date().toISOString());

function tick() {
  const now = Date.now() - skew;
  for (const time of all("time[data-tick]")) {
    const text = ticked(time.dataset.tick, (now - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
  alive();
  again();
}

// Something long runs that the stream does not tell of: as long as the page says so, it is looked at again now and then.
function again() {
  const note = one("[data-again]");
  if (note && !looking && !document.hidden && Date.now() - last > Number(note.dataset.again) * 1000) look();
}

// Live -------------------------------------------------------------------------------------------

let heard = 0;
let looking = false;
let wanted = false;
let last = 0;

function alive() {
  const chip = one("[data-alive]");
  if (!chip || !document.body.dataset.stream) return;
  const silence = Date.now() - heard;
  const late = !heard || silence > SILENT;
  chip.hidden = false;
  chip.classList.toggle("late", late);
  const text = late ? "Disconnected, retrying…" : `Live · ${short(silence / 1000)} ago`;
  if (chip.textContent !== text) chip.textContent = text;
}

let stream = null;

// A page that nobody sees listens to nothing: browsers give all tabs of a place six connections together.
function listen() {
  const address = document.body.dataset.stream;
  if (!address || stream || document.hidden) return;
  const mine = stream = new EventSource(from(address));
  const hear = () => { heard = Date.now(); alive(); };
  mine.addEventListener("open", () => { if (heard) look(); hear(); });
  mine.addEventListener("beat", hear);
  mine.addEventListener("change", () => { hear(); look(); });
  mine.addEventListener("log", (event) => { hear(); append(JSON.parse(event.data)); });
  mine.addEventListener("error", () => {
    // Browsers come back by themselves from a broken connection, not from a refusal: the session may be over, or a server away.
    if (mine.readyState !== EventSource.CLOSED) return;
    hush();
    look();
    setTimeout(listen, AGAIN);
  });
}

// Output that is here already is not asked for again.
function from(address) {
  const asked = new URL(address, location.href);
  const log = one("[data-log]");
  if (log && asked.searchParams.has("log")) asked.searchParams.set("log", log.dataset.log);
  return asked.href;
}

function hush() {
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => { if (document.hidden) hush(); else listen(); });
addEventListener("pagehide", hush);

// One look at a time, and one more where something happened meanwhile.
async function look() {
  wanted = true;
  if (looking) return;
  looking = true;
  while (wanted) {
    await new Promise((done) => setTimeout(done, Math.max(60, last + EARLIEST - Date.now())));
    wanted = false;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Look-Again": "1" }, credentials: "same-origin", redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (answer.ok) renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* The chip tells that the page is not live. */ }
  }
  looking = false;
}

function renew(fresh) {
  for (const region of all("[data-region]")) {
    const next = fresh.getElementById(region.id);
    if (!next || same(region, next)) continue;
    if (busy(region)) { waits(region); continue; }
    const open = new Set(all("details[open][id]", region).map((it) => it.id));
    const focused = region.contains(document.activeElement) ? document.activeElement.id : "";
    region.replaceChildren(...next.childNodes);
    for (const it of all("details[id]", region)) it.open = open.has(it.id);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    region.classList.remove("changed");
    void region.offsetWidth;
    region.classList.add("changed");
  }
  tick();
}

// Times run on their own: they are no change.
function same(region, next) {
  const bare = (root) => {
    const copy = root.cloneNode(true);
    for (const time of all("time[data-tick]", copy)) time.textContent = "";
    for (const it of all("details", copy)) it.removeAttribute("open");
    for (const it of all("[data-passing]", copy)) it.remove();
    return copy.innerHTML;
  };
  return bare(region) === bare(next);
}

// What somebody is writing is never taken from under their hands.
function busy(region) {
  return "dirty" in region.dataset || (region.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"));
}

function waits(region) {
  if (one(":scope > [data-passing]", region)) return;
  const note = document.createElement("p");
  note.className = "note wait";
  note.dataset.passing = "";
  note.setAttribute("role", "status");
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Reload";
  note.append("This page changed while you were typing. ", link);
  region.prepend(note);
}

// Output of a job, as it comes.
function append(chunk) {
  const log = one("[data-log]");
  if (!log || chunk.seq <= Number(log.dataset.log)) return;
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.dataset.log = chunk.seq;
  log.append(chunk.text);
  while (log.childNodes.length > CHUNKS) log.firstChild.remove();
  if (follows) log.scrollTop = log.scrollHeight;
}

// Keyboard ---------------------------------------------------------------------------------------

function step(by) {
  const items = all("[data-item]");
  if (!items.length) return;
  const at = items.findIndex((item) => item.contains(document.activeElement));
  const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + by))];
  next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

// Opens and goes to the form; a person still has to send it.
function goTo(what) {
  const item = document.activeElement?.closest("[data-item]") ?? one("[data-item]");
  const target = item && one(`[data-go="${what}"]`, item);
  if (!target) return;
  const box = target.closest("details");
  if (box) box.open = true;
  target.focus();
  target.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  a: () => goTo("approve"),
  d: () => goTo("deny"),
  "/": () => one("[data-search]")?.focus(),
  "?": () => one("#help")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "Enter" && event.target.matches("[data-item]")) {
    one("a[data-open]", event.target)?.click();
    return;
  }
  const does = KEYS[event.key];
  if (!does) return;
  event.preventDefault();
  does();
});

// Forms ------------------------------------------------------------------------------------------

document.addEventListener("input", (event) => {
  const region = event.target.closest("[data-region]");
  if (region && event.target.closest("form")) region.dataset.dirty = "";
});

// A second press must not send twice; the server would refuse it, and the person would read of a conflict of their own making.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post" || event.defaultPrevented) return;
  if ("sent" in event.target.dataset) { event.preventDefault(); return; }
  event.target.dataset.sent = "";
});
addEventListener("pageshow", () => {
  listen();
  for (const form of all("form[data-sent]")) delete form.dataset.sent;
});

one("[data-help]")?.removeAttribute("hidden");
one("[data-help]")?.addEventListener("click", () => one("#help").showModal());
const log = one("[data-log]");
if (log) log.scrollTop = log.scrollHeight;
// On a narrow screen places and choices scroll; where one is must be among those that show.
for (const here of all(".places [aria-current], .choice [aria-current]")) {
  here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;
}
tick();
setInterval(tick, 1000);
