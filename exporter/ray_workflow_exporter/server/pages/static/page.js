// Updates the page when something changes, and carries out its buttons.
"use strict";

const root = document.body.dataset.root;
const REFRESH_MILLISECONDS = 1000;
const AGAIN_MILLISECONDS = 5000;
// The clocks of the exporter and of this machine may differ.
const skew = Number(document.body.dataset.now) * 1000 - Date.now();

// --- Live updates -------------------------------------------------------------

// Changes `old` into `fresh` in as few steps as possible, so that focus, scroll positions and
// input stay. Elements with an id are found again wherever they moved.
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // Removed elements first: those after them then keep their place, and the focus.
  const ids = new Set(Array.from(fresh.children, (it) => it.id));
  const known = new Map();
  for (const child of [...old.children]) {
    if (child.id && !ids.has(child.id)) child.remove();
    else if (child.id) known.set(child.id, child);
  }
  if (known.size) old.normalize(); // texts that were on both sides of it
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const match = child.id ? known.get(child.id) : alike(at, child) ? at : null;
    if (!match || match.nodeName !== child.nodeName) {
      old.insertBefore(document.importNode(child, true), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    if (match.nodeType === Node.ELEMENT_NODE) morph(match, child);
    else if (match.data !== child.data) match.data = child.data;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function alike(old, fresh) {
  return old && !old.id && old.nodeName === fresh.nodeName;
}

let events;
let refreshing = false;
let stale = false;
let refreshed = 0;

async function refresh() {
  stale = true;
  if (refreshing || document.hidden) return;
  refreshing = true;
  let pause = REFRESH_MILLISECONDS;
  while (stale && !document.hidden) {
    await sleep(refreshed + pause - Date.now());
    stale = false;
    pause = REFRESH_MILLISECONDS;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      // Other errors, as 503, say nothing about the run: what was known of it stays.
      if (!answer.ok && answer.status !== 404) throw new Error(answer.statusText);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      if (events.readyState === EventSource.OPEN) showLive(LIVE, "good");
    } catch {
      showLive(AWAY, "bad");
      stale = true;
      pause = AGAIN_MILLISECONDS;
    }
    refreshed = Date.now();
  }
  refreshing = false;
}

function show(page) {
  const focused = document.activeElement;
  morph(document.getElementById("main"), page.getElementById("main"));
  document.title = page.title;
  // An element that moves loses the focus.
  if (focused.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
  }
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
}

const LIVE = "Live";
const AWAY = "Not live: the exporter does not answer. Trying again …";

// Only in a visible tab: a browser opens six connections to a server, for all tabs together.
function follow() {
  events?.close();
  if (document.hidden) return;
  const only = document.body.dataset.follow;
  events = new EventSource(`${root}api/v1/events${only && `?workflow_id=${only}`}`);
  for (const kind of ["ready", "run", "task", "gone", "reset"]) {
    events.addEventListener(kind, () => refresh());
  }
  events.addEventListener("open", () => showLive(LIVE, "good"));
  events.addEventListener("error", () => {
    showLive(AWAY, "bad");
    // A browser gives up after an answer that is no stream, such as 503.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MILLISECONDS);
  });
}

function showLive(text, kind) {
  const live = document.getElementById("live");
  live.hidden = false;
  live.className = kind;
  if (live.textContent !== text) live.textContent = text;
}

// Two units, as the server writes them.
function span(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}s`;
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [whole / 86400, (whole / 3600) % 24, (whole / 60) % 60].map(
    Math.floor,
  );
  if (days) return `${days}d ${two(hours)}h`;
  return hours ? `${hours}h ${two(minutes)}m` : `${minutes}m ${two(whole % 60)}s`;
}

function tick() {
  for (const it of document.querySelectorAll("[data-since]")) {
    it.textContent = span(Math.max(0, (Date.now() + skew) / 1000 - Number(it.dataset.since)));
  }
}

// --- Buttons ---------------------------------------------------------------------------

const TOKEN = "ray-workflow-exporter-token";
const dialog = document.getElementById("confirm");

function ask(button) {
  const form = dialog.querySelector("form");
  dialog.querySelector("h2").textContent = `${button.dataset.label}?`;
  dialog.querySelector("code").textContent = button.dataset.run;
  document.getElementById("confirm-text").textContent = button.dataset.question;
  const yes = document.getElementById("confirm-yes");
  yes.textContent = button.dataset.label;
  yes.className = button.className;
  document.getElementById("confirm-manager").hidden = !("startManager" in button.dataset);
  form.elements.start_manager.checked = false;
  form.elements.token.value = sessionStorage.getItem(TOKEN) ?? "";
  dialog.returnValue = "no";
  // The button may be another one by then: the page goes on behind the dialog.
  const request = { ...button.dataset };
  dialog.onclose = () => {
    const token = form.elements.token.value.trim();
    const startManager = form.elements.start_manager.checked;
    form.elements.token.value = "";
    if (dialog.returnValue === "yes") act(request, token, startManager);
  };
  dialog.showModal();
}

async function act(order, token, startManager) {
  sessionStorage.setItem(TOKEN, token);
  const what = `${order.label}${order.run ? ` ${order.run}` : ""}`;
  const headers = { Authorization: `Bearer ${token}`, "Idempotency-Key": unique() };
  const line = newLine();
  let taken = false;
  showOutcome(line, `${what}: sent …`);
  try {
    const url = here(order.url);
    let body;
    if (order.method === "DELETE") {
      if (startManager) url.searchParams.set("start_manager", "true");
    } else {
      headers["Content-Type"] = "application/json";
      body = { ...JSON.parse(order.body), ...(startManager && { start_manager: true }) };
    }
    let answer = await fetch(url, {
      method: order.method,
      headers,
      body: body && JSON.stringify(body),
    });
    if (answer.status === 401) sessionStorage.removeItem(TOKEN);
    let action = await answer.json();
    taken = answer.ok;
    // A queued run may wait for hours.
    for (let pause = 500; answer.ok && !action.finished_at; pause = Math.min(2 * pause, 5000)) {
      showOutcome(line, `${what}: ${action.detail ?? "in progress …"}`);
      await sleep(pause);
      answer = await fetch(here(`${root}api/v1/actions/${action.action_id}`), {
        headers: { Authorization: headers.Authorization },
      });
      action = await answer.json();
    }
    if (taken && !answer.ok) throw new Error(action.detail);
    const kind = action.state === "SUCCEEDED" ? "good" : "bad";
    showOutcome(line, `${what}: ${taken ? `${action.state}. ` : ""}${action.detail}`, kind);
  } catch (error) {
    const where = taken ? "accepted, but its outcome is not known" : "no answer from the exporter";
    showOutcome(line, `${what}: ${where} (${error.message}). Whether it was done is not known: look at ` +
      "the state of the run.", "bad");
  }
  refresh();
}

// The address of the page may hold a user and a password, with which `fetch` takes no address.
function here(path) {
  return new URL(path, location.href);
}

// Not `crypto.randomUUID`: browsers have it on encrypted pages only.
function unique() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (it) => it.toString(16)).join("-");
}

// One for each action under way: the outcome of one must not hide that of another.
function newLine() {
  const outcome = document.getElementById("outcome");
  for (const ended of outcome.querySelectorAll(".good, .bad")) ended.remove();
  return outcome.appendChild(document.createElement("p"));
}

function showOutcome(line, text, kind = "") {
  line.className = kind;
  if (line.textContent !== text) line.textContent = text; // a screen reader says it again
}

// -----------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-url]");
  if (button) ask(button);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("search")?.focus();
  }
});

document.addEventListener("change", (event) => {
  if (event.target.closest("form.filter") && event.target.matches("select, [type=checkbox]")) {
    event.target.form.requestSubmit();
  }
});

if ("follow" in document.body.dataset) {
  follow();
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", follow);
}
