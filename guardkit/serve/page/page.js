"use strict";
// Text goes into the page as text alone: nothing that was judged is ever read as markup.

const $ = (id) => document.getElementById(id);
const unseen = /[\p{C}\p{Zl}\p{Zp}]/gu;

function visible(text) {
  return text.replace(unseen, (c) => c === "\n" || c === "\t" ? c :
    `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function made(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = visible(String(text));
  if (className) element.className = className;
  return element;
}

function shown(number) {
  if (number === null || number === undefined) return "none";
  return number > 0 && number < 0.001 ? "under 0.001" : number.toFixed(3);
}

function request(text) {
  let value;
  try { value = JSON.parse(text); } catch { return { text }; }
  if (Array.isArray(value) && value.length && value.every((m) => m && typeof m === "object")) {
    return { messages: value };
  }
  const fields = ["text", "prompt", "messages", "input", "system", "instructions"];
  const record = value && typeof value === "object" && !Array.isArray(value);
  return record && fields.some((name) => name in value) ? value : { text };
}

async function asked(path, body) {
  const headers = { "content-type": "application/json" };
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  const answer = await fetch(path, body === undefined ? { headers } :
    { method: "POST", headers, body: JSON.stringify(body) });
  const told = await answer.json();
  if (answer.ok) return told;
  if (answer.status === 401) $("keyed").open = true;
  throw new Error(told.error.message);
}

function showDecision(decision) {
  const failed = decision.error === null ? "" : ", not judged";
  $("verdict").textContent = decision.action + failed;
  $("verdict").className = decision.action;
  const notes = [decision.error, decision.truncated ? "Part of it was not read." : null];
  $("error").textContent = visible(notes.filter(Boolean).join(" "));
  $("error").hidden = !$("error").textContent;
  $("categories").replaceChildren(...Object.entries(decision.categories).map(([name, own]) => {
    const row = document.createElement("tr");
    const head = made("th", name);
    head.scope = "row";
    row.append(head, made("td", own.action, own.action), made("td", shown(own.score), "num"),
      made("td", shown(own.threshold), "num"), made("td", own.decided_by ?? "nobody"));
    return row;
  }));
  $("route").replaceChildren(...decision.route.map((step) => {
    const place = [step.message, step.part].filter(Boolean).join(".");
    const where = place ? ` of ${place}${step.role ? ` (${step.role})` : ""}` : "";
    return made("li", `${step.category}: ${step.member}${where}, score ${shown(step.score)}, ${step.why}`);
  }));
}

function evidence(told) {
  const part = document.createElement("section");
  part.append(made("h3", `Member ${told.member}`));
  if (told.error) {
    part.append(made("p", told.error, "soft"));
    return part;
  }
  const scores = Object.entries(told.probabilities).map(([label, p]) => `${label} ${shown(p)}`);
  const form = told.as_it_stands ? "" : " Explained is the reading of it that decides.";
  part.append(made("p", `${scores.join(", ")}. What each piece adds to ${told.label} (scorer ${told.scorer}), red for it, blue against.${form}`, "soft"));
  const text = document.createElement("bdi");
  text.className = "text";
  const characters = Array.from(told.text); // pieces count characters, not UTF-16 units
  const largest = Math.max(...told.pieces.map((piece) => Math.abs(piece[2])), 1e-9);
  let at = 0;
  for (const [start, end, value] of told.pieces) {
    text.append(visible(characters.slice(at, start).join("")));
    const piece = made("span", characters.slice(start, end).join(""), value > 0 ? "for" : "against");
    piece.style.setProperty("--share", `${Math.round((100 * Math.abs(value)) / largest)}%`);
    piece.title = (value > 0 ? "+" : "") + value.toFixed(3);
    text.append(piece);
    at = end;
  }
  text.append(visible(characters.slice(at).join("")));
  part.append(text);
  return part;
}

async function judge() {
  $("status").textContent = "Judging.";
  $("answer").hidden = true;
  try {
    const told = await asked("v1/explain", request($("text").value));
    showDecision(told.decision);
    $("evidence").replaceChildren(...told.evidence.map(evidence));
    $("answer").hidden = false;
    $("status").textContent = "";
    $("verdict").focus();
  } catch (error) {
    $("status").textContent = visible(`Not judged: ${error.message}`);
  }
}

async function showPolicy() {
  try {
    const own = await asked("v1/policy");
    $("policy").textContent =
      `Policy ${own.name} (${own.hash.slice(0, 12)}${own.mode === "shadow" ? ", in shadow" : ""}): ${Object.keys(own.categories).join(", ")}`;
  } catch (error) {
    $("policy").textContent = error.message;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  judge();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("key").addEventListener("change", showPolicy);
showPolicy();
