// Keeps pages up to date, adds keyboard shortcuts and restores drafts. Every page works without it. It never submits a form.

const MIN_REFRESH_MS = 400; // Between two refreshes, however many events arrive.
const CONNECT_MS = 3_000; // Without a stream for this long, the page counts as disconnected.
const RECONNECT_MS = 5_000; // Until the next attempt after a refused stream.
const MAX_CHUNKS = 500; // Output chunks that a page keeps; the download has all of them.
const MAX_SILENCE_MS = 20_000; // Without an event for this long, the page counts as disconnected.
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
  return seconds > -1 ? `${short(seconds)} ago` : `in ${short(-seconds)}`;
}

// Use the server's clock, because the browser's may be wrong.
const skew = Date.now() - Date.parse(document.documentElement.dataset.now ?? new Date().toISOString());

function tick() {
  const now = Date.now() - skew;
  for (const time of all("time[data-tick]")) {
    const text = ticked(time.dataset.tick, (now - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
    // The server knows only UTC.
    if (!time.dataset.local) time.title = `${new Date(time.dateTime).toLocaleString()} local time, ${time.dataset.local = time.title}`;
  }
  warnWhenIdle();
  showConnection();
  refreshProgress();
}

// The stream reports no progress of long-running tasks. While the page shows one, refresh it at the interval that it names.
function refreshProgress() {
  const note = one("[data-again]");
  if (note && !refreshing && !document.hidden && Date.now() - lastRefresh > Number(note.dataset.again) * 1000) refresh();
}

// Idle login -------------------------------------------------------------------------------------

const IDLE_WARNING_S = 120; // How long before its end an idle login is announced.
const idleAfter = Number(document.body.dataset.idle ?? 0);
const USE_INTERVAL_S = 60; // The console records use once a minute, so a login may end that much earlier.
const LAST_USE = "je-last-use"; // Shared by all tabs: each page that a person opens extends the login.
if (idleAfter) localStorage.setItem(LAST_USE, Date.now());

function warnWhenIdle() {
  const bar = one("#idle");
  if (!bar) return;
  const left = idleAfter - Math.min(USE_INTERVAL_S, idleAfter / 2) - (Date.now() - Number(localStorage.getItem(LAST_USE))) / 1000;
  const ends = left < Math.min(IDLE_WARNING_S, idleAfter / 2);
  if (bar.hidden === ends) bar.hidden = !ends;
  if (ends) one("[data-idle-left]", bar).textContent = span(left);
}

// A request without the header of automatic refreshes counts as use.
one("[data-stay]")?.addEventListener("click", async () => {
  const response = await fetch("/sessions", { credentials: "same-origin", redirect: "manual" });
  if (!response.ok) { location.reload(); return; }
  localStorage.setItem(LAST_USE, Date.now());
  warnWhenIdle();
});

// Live -------------------------------------------------------------------------------------------

let lastEvent = 0;
let streamMissedAt = Infinity; // Since when the page has tried to open its stream; Infinity if it has it, or does not try.
let refreshing = false;
let refreshNeeded = false;
let lastRefresh = 0;
let retryTimer = 0;

function showConnection() {
  const chip = one("[data-alive]");
  if (!chip || !document.body.dataset.stream) return;
  const isOpen = stream?.readyState === EventSource.OPEN;
  const silence = Date.now() - lastEvent;
  const late = isOpen ? silence > MAX_SILENCE_MS : Date.now() - streamMissedAt > CONNECT_MS;
  // A stream that is being opened, or opened again, is not lost yet.
  if (!isOpen && !late) return;
  chip.classList.remove("waiting");
  chip.classList.toggle("late", late);
  const text = late ? "Disconnected, retrying…" : `Live · ${short(silence / 1000)} ago`;
  if (chip.textContent !== text) chip.textContent = text;
}

let stream = null;

// A hidden page closes its stream, because all tabs of a site share six connections.
function listen() {
  const address = document.body.dataset.stream;
  if (!address || stream || document.hidden) return;
  const missStream = () => { streamMissedAt = Math.min(streamMissedAt, Date.now()); };
  missStream();
  const source = stream = new EventSource(streamUrl(address));
  const recordEvent = () => { lastEvent = Date.now(); streamMissedAt = Infinity; showConnection(); };
  source.addEventListener("open", () => { if (lastEvent) refresh(); recordEvent(); });
  source.addEventListener("beat", recordEvent);
  source.addEventListener("change", () => { recordEvent(); refresh(); });
  source.addEventListener("log", (event) => { recordEvent(); appendOutput(JSON.parse(event.data)); });
  source.addEventListener("error", () => {
    missStream();
    // Browsers reconnect after a broken connection, but not after a refusal: the session may have ended, or a server may be down.
    if (source.readyState !== EventSource.CLOSED) return;
    closeStream();
    refresh();
    setTimeout(listen, RECONNECT_MS);
  });
}

// Request only output that is not on the page yet.
function streamUrl(address) {
  const url = new URL(address, location.href);
  const log = one("[data-log]");
  if (log && url.searchParams.has("log")) url.searchParams.set("log", log.dataset.log);
  return url.href;
}

function closeStream() {
  stream?.close();
  stream = null;
}

// Nobody sees the page any more. If it is shown again, it opens its stream again.
function stopListening() {
  closeStream();
  streamMissedAt = Infinity;
  one("[data-alive]")?.classList.add("waiting");
}

document.addEventListener("visibilitychange", () => { if (document.hidden) stopListening(); else listen(); });
addEventListener("pagehide", stopListening);

// One refresh runs at a time. If an event arrives during it, another one follows.
async function refresh() {
  refreshNeeded = true;
  if (refreshing) return;
  refreshing = true;
  while (refreshNeeded) {
    await new Promise((done) => setTimeout(done, Math.max(60, lastRefresh + MIN_REFRESH_MS - Date.now())));
    refreshNeeded = false;
    lastRefresh = Date.now();
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html", "X-Look-Again": "1", "X-Regions": knownRegions() }, credentials: "same-origin", redirect: "manual" });
      if (response.type === "opaqueredirect") { location.reload(); return; }
      if (response.ok) {
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
        // Somebody has logged in again in another tab: this page's forms belong to the earlier login, and maybe to another person.
        if (fresh.getElementById("page-session")) { interruptDraft(); location.reload(); return; }
        updateRegions(fresh);
      }
      else if (response.status === 429 || response.status >= 500) retryRefresh();
      // The page may not be read any more. What it shows must not stay.
      else { interruptDraft(); location.reload(); return; }
    } catch { retryRefresh(); }
  }
  refreshing = false;
}

// The stream may be open meanwhile, and reports each change only once.
function retryRefresh() {
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => { if (!document.hidden) refresh(); }, RECONNECT_MS);
}

// The server sends only regions that differ from these.
function knownRegions() {
  return all("[data-region]").map((region) => `${region.id}=${region.dataset.region}`).join(",");
}

function updateRegions(fresh) {
  document.title = fresh.title;
  for (const region of all("[data-region]")) {
    const next = fresh.getElementById(region.id);
    if (!next) continue;
    if (isBusy(region)) { showChangeNote(region); continue; }
    region.dataset.region = next.dataset.region;
    region.className = next.className;
    const open = new Set(all("details[open][id]", region).map((it) => it.id));
    const focused = region.contains(document.activeElement) ? document.activeElement : null;
    const mark = focused && markOf(focused);
    const key = focused && !mark && keyOf(focused);
    const isItem = focused?.matches("[data-item]");
    region.replaceChildren(...next.childNodes);
    keepTarget(region);
    for (const it of all("details[id]", region)) it.open = open.has(it.id);
    const marked = mark ? one(mark, region) : key && elementWithKey(key, focused.tagName, region);
    if (marked) focus(isItem ? marked.closest("[data-item]") : marked);
    void region.offsetWidth;
    region.classList.add("changed");
  }
  showLimits();
  tick();
}

// Return a selector of the same element in new content. An item of a list is known by the first id or link in it.
function markOf(element) {
  const known = element.matches("[data-item]:not([id])") ? one("[id], a[href]", element) : element;
  if (!known || known.id) return known && `#${CSS.escape(known.id)}`;
  if (known.matches("summary") && known.parentElement.id) return `#${CSS.escape(known.parentElement.id)} > summary`;
  return known.hasAttribute("href") ? `a[href="${CSS.escape(known.getAttribute("href"))}"]` : null;
}

// Return what identifies an element without an id or a link, such as a button: its form, what it does and its text.
function keyOf(element) {
  const form = element.form && nameOf(element.form);
  return JSON.stringify([form, element.name, element.value, element.getAttribute("formaction"), element.textContent]);
}

// Return the only element with a key: the focus must not move to another item's button.
function elementWithKey(key, tag, region) {
  const [found, other] = all(tag, region).filter((it) => keyOf(it) === key);
  return other ? null : found;
}

// A form that was open as the target of the address stays open when it is replaced.
function keepTarget(region) {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target || !region.contains(target)) return;
  const [left, top] = [scrollX, scrollY];
  location.replace(location.hash);
  scrollTo(left, top);
}

// Never replace a form while somebody is filling it in.
function isBusy(region) {
  return "dirty" in region.dataset || (region.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"));
}

function showChangeNote(region) {
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

// Append a new chunk of the job's output.
function appendOutput(chunk) {
  const log = one("[data-log]");
  if (!log || chunk.seq <= Number(log.dataset.log)) return;
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.dataset.log = chunk.seq;
  log.append(chunk.text);
  while (log.childNodes.length > MAX_CHUNKS) log.firstChild.remove();
  if (follows) log.scrollTop = log.scrollHeight;
}

// Keyboard ---------------------------------------------------------------------------------------

function step(by) {
  const items = all("[data-item]");
  if (!items.length) return;
  const at = items.findIndex((item) => item.contains(document.activeElement));
  const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + by))];
  focus(next);
  next.scrollIntoView({ block: "nearest" });
}

function focus(element) {
  if (element?.matches("[data-item]")) element.tabIndex = -1;
  element?.focus({ preventScroll: true });
}

// Opens the form and moves the focus to it. The person still has to submit it.
function goTo(what) {
  const item = document.activeElement?.closest("[data-item]") ?? one("[data-item]");
  const target = item && one(`[data-go="${what}"]`, item);
  if (!target) return;
  const box = target.closest("details");
  if (box) box.open = true;
  // A link to a form on this page opens it.
  if (target.hash && target.pathname === location.pathname) target.click();
  else target.focus();
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
  const action = document.body.dataset.keys === "off" ? undefined : KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

// Menus close as people expect of them.
document.addEventListener("click", (event) => {
  for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of all("details.menu[open]")) { menu.open = false; one("summary", menu).focus(); }
});

// Forms ------------------------------------------------------------------------------------------

document.addEventListener("input", (event) => {
  const region = event.target.closest("[data-region]");
  if (region && event.target.closest("form")) region.dataset.dirty = "";
  showLimits();
  showPicked();
});

// The buttons of a group say how many requests are selected.
function showPicked() {
  for (const form of all("form.batch")) {
    const count = all("[name=pick]:checked", form).length;
    for (const it of all("[data-picked]", form)) it.textContent = count ? ` (${count})` : "";
  }
}

// What an approver signs follows the limits that they choose. The server asks again if the form's `stated` is not what was chosen.
function showLimits() {
  const form = one("#sign");
  if (!form) return;
  const field = (name) => form.elements.namedItem(name);
  const said = (name) => field(name)?.selectedOptions?.[0]?.dataset.said;
  const lines = (field("tools")?.value ?? "").split("\n").map((line) => line.trim()).filter(Boolean);
  const chosen = { action: field("action")?.value, ttl: said("ttl"), absent: said("absent"), tools: lines.length ? ` only through ${lines.join(", ")}` : "" };
  for (const it of all("[data-signed]")) {
    const text = chosen[it.dataset.signed] || it.dataset.requested;
    if (it.textContent !== text) it.textContent = text;
  }
  field("stated").value = ["absent", "action", "ttl", "tools"].map((name) => field(name)?.value ?? "").join(" ").split(/\s+/).filter(Boolean).join(" ");
}

// A second press must not submit twice: the server would reject the second form and show a conflict instead of the result.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post" || event.defaultPrevented) return;
  if ("sent" in event.target.dataset) { event.preventDefault(); return; }
  event.target.dataset.sent = "";
});
addEventListener("pageshow", () => {
  listen();
  restoreDraft();
  showLimits();
  showPicked();
  for (const form of all("form[data-sent]")) delete form.dataset.sent;
});

// Drafts -----------------------------------------------------------------------------------------

const DRAFT = "je-draft"; // In this tab only: what was typed into one form, in case the login ends before it is sent.
const person = one("#person-menu summary")?.textContent.trim();
const isTyped = (field) => field.matches("textarea, select, input:not([type=hidden], [type=password], [type=file], [type=checkbox], [type=radio], [name=confirm])");
const CHANGING = ["csrf", "job", "key", "seen", "shown", "stated"]; // Hidden fields that differ each time a form is shown.

// A page may have several forms with the same action: what they are about is in their hidden fields, or in the id of what contains them.
function nameOf(form) {
  const hidden = all("[type=hidden]", form).filter(({ name }) => !CHANGING.includes(name)).map(({ value }) => value);
  return JSON.stringify([form.getAttribute("action") ?? location.pathname, form.closest("[id]")?.getAttribute("id"), ...hidden]);
}

function saveDraft(form) {
  if (!person || form?.getAttribute("method") !== "post") return;
  const fields = [...form.elements].filter(isTyped).map(({ name, value }) => [name, value]);
  if (fields.length) sessionStorage.setItem(DRAFT, JSON.stringify({ person, form: nameOf(form), fields: Object.fromEntries(fields) }));
}

// Save a form when it is sent, too: the server may have filled it in with what was typed before the preview.
document.addEventListener("input", ({ target }) => saveDraft(target.form));
document.addEventListener("submit", ({ target }) => saveDraft(target));

document.addEventListener("submit", ({ target }) => {
  if (target.matches("[action='/logout']")) sessionStorage.removeItem(DRAFT);
});

function interruptDraft() {
  const draft = JSON.parse(sessionStorage.getItem(DRAFT));
  if (draft) sessionStorage.setItem(DRAFT, JSON.stringify({ ...draft, interrupted: true }));
}

// A page without a person means that the login has ended; an error page means that a form was not accepted. After either, fill the same
// person's form in again, once, and do not send it.
function restoreDraft() {
  const draft = JSON.parse(sessionStorage.getItem(DRAFT));
  if (!draft) return;
  if (!person || one("[data-unsent]")) { interruptDraft(); return; }
  const form = all("form[method=post]").find((it) => nameOf(it) === draft.form);
  const isLost = draft.interrupted && draft.person === person;
  if (isLost && !form) return;
  sessionStorage.removeItem(DRAFT);
  if (!isLost) return;
  const fields = [...form.elements].filter(isTyped);
  for (const field of fields) field.value = draft.fields[field.name] ?? field.value;
  for (let fold = form.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (form.id) location.hash = form.id;
  // From a field, so that it is a draft again: this login, too, may end.
  fields[0]?.dispatchEvent(new Event("input", { bubbles: true }));
}

one("[data-help]")?.removeAttribute("hidden");
one("[data-help] button")?.addEventListener("click", () => one("#help").showModal());
const log = one("[data-log]");
if (log) log.scrollTop = log.scrollHeight;
// On a narrow screen the navigation and filters scroll; scroll the current entry into view.
for (const here of all(".places [aria-current], .choice [aria-current]")) {
  here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;
}
// A wide screen has room for more than the summary.
if (matchMedia("(min-width: 100rem)").matches) for (const it of all("details[data-wide]")) it.open = true;
tick();
setInterval(tick, 1000);
