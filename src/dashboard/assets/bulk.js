// Continues a bulk change by itself, and shows the progress. Without this script, the operator presses a button for each part.
"use strict";

(() => {
  const progress = document.getElementById("progress");
  const next = () => progress.querySelector("form[data-continue]");
  if (next() === null) return;

  let isStopped = false;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "stop";
  button.textContent = "Stop";
  const status = document.createElement("span");
  status.className = "note";
  status.setAttribute("role", "status");
  const controls = document.createElement("p");
  controls.className = "controls";
  controls.append(button, " ", status);
  document.querySelector("h1").after(controls);

  function end(text) {
    button.remove();
    status.textContent = text;
    toggle(false);
  }

  // Shows the form's button only while this script does not continue by itself.
  function toggle(isRunning) {
    const form = progress.querySelector("form");
    if (form !== null) form.querySelector("button").hidden = isRunning;
  }

  function go() {
    const form = next();
    if (form === null) return end("");
    if (isStopped) return end("Stopped. Press “Continue” to do the rest.");
    toggle(true);
    // XMLHttpRequest parses a document without running its scripts, and needs no text that becomes HTML.
    const request = new XMLHttpRequest();
    request.open("POST", location.href);
    request.responseType = "document";
    request.timeout = 60000;
    request.onload = () => {
      const fresh = request.response === null ? null : request.response.getElementById("progress");
      if (fresh === null) return end("It was interrupted. Press “Continue”, or log in again.");
      // The section stays, so that a screen reader announces what changes in it.
      progress.replaceChildren(...document.adoptNode(fresh).childNodes);
      go();
    };
    request.onerror = request.ontimeout = () => end("The server does not answer. Press “Continue” to try again.");
    request.send(new URLSearchParams(new FormData(form)));
  }

  button.addEventListener("click", () => {
    isStopped = true;
    button.disabled = true;
    status.textContent = "Stops after this part.";
  });

  go();
})();
