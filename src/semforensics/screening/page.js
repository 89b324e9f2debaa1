// The local page: take files, send them to this computer's own server, show the report.
"use strict";

const byId = (id) => document.getElementById(id);
const setting = (name) => document.querySelector(`meta[name="${name}"]`).content;
const [form, zone, input, state, seconds, progress, error, result, frame] =
  ["form", "zone", "files", "state", "clock", "progress", "error", "result", "report"].map(byId);
const MB = 1e6;
let busy = false;
let clock = null;
let links = [];

function setBusy(now) {
  busy = now;
  form.classList.toggle("busy", now);
  input.disabled = now;
  progress.hidden = !now;
  clearInterval(clock);
  seconds.textContent = "";
}

function showError(message) {
  setBusy(false);
  state.textContent = "";
  error.textContent = message;
  error.hidden = false;
  input.value = "";
  input.focus();
}

// What the server would refuse, said before anything is sent.
function complaint(files) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  if (files.length > setting("max-files"))
    return `${files.length} files at once; at most ${setting("max-files")} are taken.`;
  const large = files.find((file) => file.size > setting("max-file-mb") * MB);
  if (large) return `${large.name} is too large; at most ${setting("max-file-mb")} MB are taken.`;
  if (total > setting("max-total-mb") * MB)
    return `${Math.ceil(total / MB)} MB together; at most ${setting("max-total-mb")} MB are taken.`;
  return null;
}

function judge(files) {
  const title = files.length === 1 ? "1 file" : `${files.length} files`;
  const start = Date.now();
  state.textContent = `Judging ${title} …`;
  progress.removeAttribute("value");
  clock = setInterval(() => {
    seconds.textContent = `${Math.round((Date.now() - start) / 1000)} s. To stop, close this page.`;
  }, 1000);
}

function send(files) {
  if (busy || !files.length) return;
  error.hidden = true;
  result.hidden = true;
  const wrong = complaint(files);
  if (wrong) return showError(wrong);
  setBusy(true);
  state.textContent = "Taking the files …";
  progress.value = 0;
  const list = files.map((file) => ({ name: file.name, size: file.size }));
  const request = new XMLHttpRequest();
  request.open("POST", "/screen");
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("X-Semforensics-Token", setting("token"));
  request.upload.onprogress = (event) => { progress.value = event.loaded / event.total; };
  request.upload.onload = () => judge(files);
  request.onerror = () => showError("The connection broke. Is the program still running? A file that changed meanwhile, or a folder, cannot be sent.");
  request.onload = () => {
    let answer;
    try { answer = JSON.parse(request.responseText); } catch { answer = { error: `Status ${request.status}` }; }
    if (request.status === 200) show(answer, files.length);
    else showError(answer.error);
  };
  request.send(new Blob([`${JSON.stringify(list)}\n`, ...files]));
}

function show(answer, count) {
  setBusy(false);
  input.value = "";
  const files = count === 1 ? "1 file" : `${count} files`;
  state.textContent = `Done: ${files}, and none is kept. Save the report before you close this page.`;
  links.forEach(URL.revokeObjectURL);
  links = [["html", "text/html"], ["json", "application/json"], ["csv", "text/csv"]].map(([kind, type]) => {
    const address = URL.createObjectURL(new Blob([answer[kind]], { type }));
    byId(`save-${kind}`).href = address;
    return address;
  });
  result.hidden = false;
  frame.srcdoc = answer.html;
  byId("result-title").focus();
}

// The report is as high as its text, so that there is one page to scroll.
function fit() {
  const page = frame.contentDocument && frame.contentDocument.documentElement;
  if (!page || result.hidden) return;
  const place = window.scrollY;
  frame.style.height = "0";
  frame.style.height = `${page.scrollHeight + 2}px`;
  window.scrollTo(0, place);
}

function dropped(event) {
  const items = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
  if (items.some((entry) => entry && entry.isDirectory))
    return showError("A folder cannot be taken: drop its files, or a ZIP of it.");
  send([...event.dataTransfer.files]);
}

input.addEventListener("change", () => send([...input.files]));
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); input.click(); }
});
form.addEventListener("submit", (event) => event.preventDefault());
frame.addEventListener("load", () => {
  fit();
  frame.contentDocument.addEventListener("toggle", fit, true); // details that fold open
});
window.addEventListener("resize", fit);
byId("print").addEventListener("click", () => frame.contentWindow.print());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", !busy && (kind === "dragenter" || kind === "dragover"));
    if (kind === "drop" && !busy) dropped(event);
  });
