// Refreshes the parts of a page that are marked with data-live. Without this script, the pages are complete and stay as they are.
"use strict";

(() => {
  const marker = document.querySelector("[data-refresh]");
  if (!marker) return;

  const interval = 1000 * Number(marker.dataset.refresh);
  let isOn = read() !== "off";
  let isLoading = false;
  let failures = 0;
  let started = 0;
  let took = 0;
  let timer = 0;

  // The choice is kept for this browser. Storage can be forbidden.
  function read() {
    try {
      return localStorage.getItem("postrider-refresh");
    } catch {
      return null;
    }
  }

  function write(value) {
    try {
      localStorage.setItem("postrider-refresh", value);
    } catch {
      // The choice lasts as long as the page.
    }
  }

  const button = document.createElement("button");
  button.type = "button";
  button.className = "refresh";
  const status = document.createElement("span");
  status.className = "note";
  const controls = document.createElement("p");
  controls.className = "controls";
  controls.append(button, " ", status);
  document.querySelector("h1").after(controls);

  function show(text) {
    button.textContent = isOn ? "Stop refreshing" : "Refresh every " + interval / 1000 + " s";
    status.textContent = text;
  }

  // A refresh must not take away what somebody reads, selects or types.
  function isBusy(part) {
    const selection = document.getSelection();
    const isSelected = selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode);
    return isSelected || part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
  }

  function replace(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other !== null && !isBusy(part)) part.replaceWith(document.adoptNode(other));
    }
    localize();
  }

  function plan() {
    clearTimeout(timer);
    // A page that takes long is loaded less often, so that it costs the database at most a fifth of the time.
    const wait = Math.max(interval, 4 * took) * 2 ** Math.min(failures, 4);
    if (isOn && !document.hidden) timer = setTimeout(load, wait);
  }

  function finish(ok, text) {
    isLoading = false;
    took = performance.now() - started;
    failures = ok ? 0 : failures + 1;
    show(text);
    plan();
  }

  function load() {
    if (isLoading || document.hidden) return;
    isLoading = true;
    started = performance.now();
    // XMLHttpRequest parses a document without running its scripts, and needs no text that becomes HTML.
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 15000;
    request.onload = () => {
      const fresh = request.response;
      if (request.status === 200 && fresh !== null && fresh.querySelector("[data-refresh]") !== null) {
        replace(fresh);
        finish(true, "");
      } else if (request.status === 401 || request.status === 403) {
        isOn = false;
        finish(false, "You are no longer logged in. Reload the page.");
      } else {
        finish(false, "The last refresh failed.");
      }
    };
    request.onerror = request.ontimeout = () => finish(false, "The server does not answer.");
    request.send();
  }

  // The pages have all times in UTC. The local time is added as a title.
  function localize() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const local = new Date(time.dateTime);
      if (!Number.isNaN(local.getTime())) time.title = local.toLocaleString(undefined, { timeZoneName: "short" });
    }
  }

  button.addEventListener("click", () => {
    isOn = !isOn;
    write(isOn ? "on" : "off");
    show("");
    if (isOn) load();
    plan();
  });
  document.addEventListener("visibilitychange", () => {
    if (isOn && !document.hidden) load();
    plan();
  });

  localize();
  show("");
  plan();
})();
