// The page at /: changes as they come, an object's history as a readable diff, and the way back to a version.

import { ask, askForToken, token } from "/page/token.js";

const IRREGULAR = { userstory: "userstories" };
const noun = (type) => IRREGULAR[type] ?? `${type}s`; // in the paths of its routes
const KINDS = [
  "audio", "comment", "department", "employee", "event", "job", "milestone", "project", "task", "user", "userstory",
]; // offered by the filter from the start; others once they are seen
const SHOWN = 200; // changes kept on the page
const REFUSED = 1008; // a socket is closed so when it has no good token
const AGAIN = 1000; // milliseconds until the next try to connect

const $ = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? null));

function moment(text) {
  return element("time", { dateTime: text, title: text }, new Date(text).toLocaleString());
}

// A diff as a table: what a field was, and what it is.
function difference(diff) {
  const rows = Object.entries(diff ?? {}).map(([field, [before, after]]) => {
    const cell = element("td");
    if (before !== null) cell.append(element("del", {}, shown(before)), " ");
    if (after !== null || before === null) cell.append(element("ins", {}, shown(after)));
    return element("tr", {}, element("th", { scope: "row" }, field), cell);
  });
  return element("table", {}, ...rows);
}

// The changes ---------------------------------------------------------------------------------------------------------

let socket;
let cursor;

function address() {
  const query = new URLSearchParams(location.search);
  if (cursor) query.set("since", cursor);
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/events?${query}`;
}

function state(text, live = false) {
  $("state").textContent = text;
  $("state").toggleAttribute("data-live", live);
}

function connect() {
  socket = new WebSocket(address());
  socket.onopen = () => socket.send(JSON.stringify({ cmd: "auth", token: token() ?? "" }));
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "reset") {
      cursor = undefined;
      $("changes").replaceChildren();
    } else {
      cursor = frame.cursor;
      if (frame.type === "subscribed") state("live", true);
      else show(frame);
    }
  };
  socket.onclose = async ({ code }) => {
    state("connecting …");
    if (code === REFUSED) await askForToken();
    setTimeout(connect, AGAIN);
  };
}

function offer(type) {
  if (![...$("kinds").options].some(({ value }) => value === type)) $("kinds").append(element("option", { value: type }));
}

function show(frame) {
  const { obj_type: type, obj_id: id, action } = frame.object;
  offer(type);
  const name = id === null ? `all of ${type}` : `${type} ${shown(id)}`;
  const opener = element("a", { href: `#${type}/${encodeURIComponent(shown(id))}` }, name);
  const head = element("p", {}, moment(frame.operation_date), element("strong", {}, action), id === null ? name : opener);
  head.append(element("span", { className: "actor" }, frame.actor));
  const item = element("li", {}, head);
  if (action === "update") item.append(difference(frame.diff));
  $("changes").prepend(item);
  while ($("changes").children.length > SHOWN) $("changes").lastChild.remove();
  const [opened, key] = opening();
  if (opened === type && key === shown(id)) open();
}

$("filter").onsubmit = (event) => {
  event.preventDefault();
  const given = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]);
  const wanted = given.filter(([, value]) => value !== "");
  location.search = new URLSearchParams(wanted);
};

// An object -----------------------------------------------------------------------------------------------------------

let latest; // the newest entry of the object that is open
let next; // where its older entries are

function opening() {
  const [type, key = ""] = location.hash.slice(1).split("/");
  return [type, decodeURIComponent(key)];
}

function tell(text, done = false) {
  $("message").textContent = text;
  $("message").classList.toggle("done", done);
}

async function open() {
  const [type, key] = opening();
  $("object").hidden = !type;
  if (!type) return;
  $("title").textContent = `${type} ${key}`;
  $("history").replaceChildren();
  latest = undefined;
  next = `/history?${new URLSearchParams({ obj_type: type, obj_id: key, sort: "-id", limit: 50 })}`;
  await older();
}

async function older() {
  const [type, key] = opening();
  const answer = await ask(next);
  const body = await answer.json();
  if (!answer.ok) return tell(body.detail);
  latest ??= body.items[0];
  $("history").append(...body.items.map((entry) => version(entry, type, key)));
  next = answer.headers.get("Link")?.match(/<(.*?)>/)[1];
  $("older").hidden = !next;
}

function version(entry, type, key) {
  const head = element("p", {}, element("strong", {}, `${entry.action} ${entry.version ?? ""}`), moment(entry.operation_date));
  head.append(element("span", { className: "actor" }, entry.actor));
  if (latest.action !== "delete" && entry.version < latest.version) {
    head.append(element("button", { onclick: () => revert(type, key, entry.version) }, `Back to ${entry.version}`));
  }
  return element("li", {}, head, difference(entry.diff));
}

async function revert(type, key, to) {
  const answer = await ask(`/${noun(type)}/${encodeURIComponent(key)}/revert`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ version: latest.version, to }),
  });
  const body = await answer.json();
  tell(answer.ok ? `It is as it was in version ${to} again, as version ${body.version}.` : body.detail, answer.ok);
}

$("older").onclick = older;
window.onhashchange = () => {
  tell("");
  open();
};

// -----------------------------------------------------------------------------------------------------------------------

for (const [name, value] of new URLSearchParams(location.search)) {
  if ($("filter").elements[name]) $("filter").elements[name].value = value;
}
KINDS.forEach(offer);
connect();
open();
