"use strict";
// Shows what the service streams. Text is put in as text, and nothing is sent but requests to read.

const at = id => document.getElementById(id);
const SILENCE = 15; // Seconds without an event after which the stream counts as lost; one comes every 5 s.
let source, status_, ahead = 0, heard = 0, again = 1, timer;

const now = () => performance.now() / 1000 + ahead; // The service's clock, in seconds since the epoch.
const put = (id, words) => { const node = at(id); if (node.textContent !== words) node.textContent = words; };
const plural = (number, word) => `${number.toLocaleString()} ${word}${number === 1 ? "" : "s"}`;

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds)), two = number => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function roughly(seconds) {
  const sizes = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [word, size] = sizes.find(([, size]) => seconds >= size) ?? sizes[3];
  return plural(Math.max(0, Math.floor(seconds / size)), word);
}

const day = seconds => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

// -- the stream ----------------------------------------------------------------------------

function open() {
  close();
  if (document.hidden) return;
  heard = performance.now() / 1000;
  source = new EventSource("status/stream");
  source.onmessage = event => {
    heard = performance.now() / 1000;
    again = 1;
    status_ = JSON.parse(event.data);
    ahead = status_.now - heard;
    at("lost").hidden = true;
    draw(status_);
  };
  source.onerror = lost;
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = undefined;
}

function lost() {
  close();
  const since = status_ ? `What is below is from ${clock(status_.now)}.` : "";
  at("lost").replaceChildren(make("b", "Connection lost."), ` ${since} Trying again.`);
  at("lost").hidden = false;
  pill("bad", "Connection lost");
  timer = setTimeout(open, again * 1000);
  again = Math.min(again * 2, 8);
}

document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => status_ && drawCharts(status_));
setInterval(() => {
  if (source && performance.now() / 1000 - heard > SILENCE) lost();
  if (source && status_) tick();
}, 1000);

// -- what is shown -------------------------------------------------------------------------

function pill(kind, words) {
  at("state").className = `pill ${kind}`;
  put("state", words);
}

function draw(status) {
  const { options, slots } = status;
  put("machine", options.machine ?? "");
  document.title = `${slots.used}/${slots.total} · ${options.machine ?? "envelope"}`;
  if (!status.ready) pill("bad", "Not ready");
  else if (slots.used >= slots.total) pill("warn", "Full");
  else pill("good", "Ready");
  drawNotices(status);
  put("slots", slots.used.toLocaleString());
  put("slots-more", `of ${slots.total.toLocaleString()} in use`);
  at("slots-bar").style.setProperty("--part", Math.min(1, slots.used / slots.total));
  put("refused", total(Object.values(status.refusals)).toLocaleString());
  put("refused-more", "requests since the start");
  drawSessions(status.sessions);
  drawCharts(status);
  drawRules(status.rules);
  drawKeys(status);
  drawOptions(options);
  tick();
}

function tick() {
  put("about", `Version ${status_.version}, up for ${roughly(status_.uptime + now() - status_.now)}`);
  for (const { row, session } of rows.values()) {
    const left = session.until - now(), cell = row.firstChild;
    const words = left > 0 ? span(left) : "ending";
    if (cell.firstChild.nodeValue !== words) cell.firstChild.nodeValue = words;
    cell.lastChild.style.setProperty("--part", Math.max(0, left / (session.until - session.since)).toFixed(3));
    row.classList.toggle("soon", left < 10);
  }
}

function drawNotices(status) {
  const notices = [...status.reasons.map(line => ["bad", "Not ready:", line]), ...status.warnings.map(line => ["warn", "Warning:", line])];
  at("notices").hidden = !notices.length;
  at("notice-list").replaceChildren(...notices.map(([kind, word, line]) => {
    const item = make("li", undefined, kind);
    item.append(make("b", word), ` ${line}`);
    return item;
  }));
}

const rows = new Map(); // By the session's id.

function drawSessions(sessions) {
  const body = at("sessions").tBodies[0];
  put("sessions-count", sessions.length ? sessions.length.toLocaleString() : "");
  at("no-sessions").hidden = sessions.length > 0;
  at("sessions").parentNode.hidden = !sessions.length;
  const open = new Set(sessions.map(session => session.id));
  for (const [id, { row }] of rows) if (!open.has(id)) { row.remove(); rows.delete(id); }
  const few = document.body.dataset.drawn && sessions.length - rows.size < 20; // Those that come then are marked.
  document.body.dataset.drawn = "yes";
  for (const session of sessions) {
    let known = rows.get(session.id);
    if (!known) {
      known = { row: makeRow(session) };
      if (few) known.row.className = "new";
      rows.set(session.id, known);
      body.append(known.row);
    }
    known.session = session;
    const { children } = known.row;
    for (const [place, words] of [[4, count(session.packets)], [5, session.bytes === null ? "–" : scaled(session.bytes, "B")]]) {
      if (children[place].textContent !== words) children[place].textContent = words;
    }
  }
}

const count = number => number === null ? "–" : number.toLocaleString();

function makeRow(session) {
  const row = make("tr");
  row.role = "row";
  const bar = make("span", undefined, "bar"), ends = make("td", "", "ends");
  bar.append(make("i"));
  ends.append(" ", bar);
  const claims = make("td", undefined, "claims");
  for (const [name, value] of Object.entries(session.claims)) {
    const claim = make("span", undefined, "claim");
    claim.append(make("b", name), ` ${value}`);
    claims.append(claim, " ");
  }
  const cells = [
    ["Ends in", ends], ["Address", make("td", session.address ?? "unknown", "mono")], ["Subject", make("td", session.subject ?? "–")],
    ["Since", make("td", clock(session.since))], ["Packets in", make("td", "", "number")], ["Bytes in", make("td", "", "number")],
    ["Claims", claims], ["Session", make("td", session.id, "mono id")],
  ];
  for (const [label, cell] of cells) {
    cell.dataset.label = label;
    cell.role = "cell";
    row.append(cell);
  }
  return row;
}

function ruleItem([line, word]) {
  const item = make("li");
  item.append(make("span", word, `word ${{ held: "good", missing: "bad", stray: "warn" }[word]}`), make("code", line));
  return item;
}

let judged = [], shownRules = "";

function drawRules({ wanted, held }) {
  const inForce = new Set(held), asked = new Set(wanted);
  judged = wanted.map(line => [line, inForce.has(line) ? "held" : "missing"]);
  judged.push(...held.filter(line => !asked.has(line)).map(line => [line, "stray"]));
  const wrong = judged.filter(([, word]) => word !== "held");
  const missing = wrong.filter(([, word]) => word === "missing").length, strays = wrong.length - missing, good = judged.length - wrong.length;
  const managed = status_.options.firewall !== "none";
  put("rules-short", managed ? good.toLocaleString() : "none");
  put("rules-more", managed ? `held, ${missing} missing, ${strays} stray` : "managed");
  at("rules-short").closest(".tile").className = `tile ${missing ? "alert" : strays ? "notable" : ""}`;
  put("rules-words", !managed ? "The firewall is not managed (--firewall=none)." : !judged.length ? "Not in force yet."
    : `${plural(good, "rule")} held, ${missing || "none"} missing, ${strays ? plural(strays, "stray") : "no strays"}. ` +
      "Grants are among them; the kernel is looked at every 10 seconds.");
  at("rules-wrong").replaceChildren(...wrong.slice(0, 50).map(ruleItem));
  at("rules-all").hidden = !judged.length;
  drawAllRules();
}

function drawAllRules() {
  if (!at("rules-all").open) return;
  const text = JSON.stringify(judged);
  if (text !== shownRules) at("rules-list").replaceChildren(...judged.map(ruleItem));
  shownRules = text;
}

at("rules-all").addEventListener("toggle", drawAllRules);

function fact(head, ...lines) {
  const item = make("li", head);
  item.append(...lines.map(line => make("span", line)));
  return item;
}

function drawKeys({ keys, certificate, now: moment }) {
  at("no-keys").hidden = keys.length > 0;
  at("keys").replaceChildren(...keys.map(key => fact(key.kid, `${key.alg}, by --${key.source}, in use for ${roughly(moment - key.since)}`)));
  at("no-cert").hidden = certificate !== null;
  const left = certificate ? certificate.not_after - moment : 0;
  put("cert-short", !certificate ? "none" : left > 0 ? roughly(left).replace(/ .*/, "") : "expired");
  put("cert-more", !certificate ? "not encrypted" : left > 0 ? `${roughly(left).replace(/.* /, "")} left` : "clients refuse it");
  at("cert-short").closest(".tile").className = `tile ${!certificate || left <= 0 ? "alert" : left < 14 * 86400 ? "notable" : ""}`;
  at("cert").replaceChildren(...(certificate ? [fact(
    certificate.names.join(", ") || "no names", `Valid from ${day(certificate.not_before)} until ${day(certificate.not_after)}`,
    `In use for ${roughly(moment - certificate.since)}`,
  )] : []));
}

let shownOptions = "";

function drawOptions(options) {
  const text = JSON.stringify(options);
  if (text === shownOptions) return; // A service that was started again may have others.
  shownOptions = text;
  const words = value => Array.isArray(value) ? value.join(", ") : value === null ? "" : String(value);
  at("options").replaceChildren(...Object.entries(options).flatMap(([name, value]) =>
    [make("dt", `--${name}`), make("dd", words(value) || "–")]));
}

open();
