"use strict";
// The page works without this. It adds: what comes live, keys, and, on a server with a token, the token in a header.
// The token stays in this tab (sessionStorage belongs to one origin, port included): it is in no URL, no cookie and no log.
(() => {
  const KEY = "precedent.token";
  let going = null;
  const ask = (url, accept, signal) => {
    const headers = { accept };
    const token = sessionStorage.getItem(KEY);
    if (token) headers.authorization = "Bearer " + token;
    return fetch(url, { headers, signal, credentials: "omit", redirect: "error" });
  };
  const parsed = async (answer) => new DOMParser().parseFromString(await answer.text(), "text/html");

  const go = async (url, push) => {
    try {
      const answer = await ask(url, "text/html");
      const html = await parsed(answer);
      if (answer.status === 401) sessionStorage.removeItem(KEY);
      document.title = html.title;
      document.body.replaceWith(html.body);
      if (push) history.pushState(null, "", url);
      const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
      if (target) target.scrollIntoView(); else window.scrollTo(0, 0);
      begin();
    } catch (error) {
      const said = document.getElementById("said");
      if (said) said.textContent = "The server cannot be asked: " + error.message;
    }
  };

  // Server-sent events, read with fetch: an EventSource cannot carry a token.
  const follow = async (list, signal) => {
    const light = document.querySelector(".live");
    let wait = 500;
    while (!signal.aborted) {
      try {
        const last = list.dataset.last;
        const url = list.dataset.events + (last ? "&after=" + last : "");
        const answer = await ask(url, "text/event-stream", signal);
        if (!answer.ok) throw new Error(answer.status);
        light.dataset.on = "";
        light.textContent = "live";
        wait = 500;
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let tail = "\n";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          // Only that something came matters: the server renders it. A line that begins with "id:" is an event.
          const seen = tail + value;
          tail = seen.slice(-3);
          if (seen.includes("\nid:")) await refresh(list, signal);
        }
      } catch (error) {
        if (signal.aborted) return;
      }
      delete light.dataset.on;
      light.textContent = "not live, trying again";
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, 10000);
    }
  };

  let fresh = 0;
  let waiting = null;
  const refresh = (list, signal) => {
    waiting ??= (async () => {
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, fresh + 400 - Date.now())));
      waiting = null;
      fresh = Date.now();
      const answer = await ask(location.href, "text/html", signal);
      if (!answer.ok || signal.aborted) return;
      const html = await parsed(answer);
      const now = html.getElementById("timeline");
      if (!now || !list.isConnected) return;
      const had = new Set([...list.children].map((row) => row.dataset.position));
      const focused = document.activeElement && document.activeElement.closest("#timeline li");
      for (const row of now.children) if (had.size && !had.has(row.dataset.position)) row.classList.add("new");
      list.dataset.last = now.dataset.last || "";
      list.replaceChildren(...now.children);
      const facts = html.getElementById("facts");
      if (facts) document.getElementById("facts").replaceWith(facts);
      const empty = document.getElementById("empty");
      if (empty && list.children.length) empty.remove();
      const again = focused && list.querySelector(`li[data-position="${CSS.escape(focused.dataset.position)}"] a`);
      if (again) again.focus({ preventScroll: true });
    })().catch(() => { waiting = null; });
  };

  const begin = () => {
    if (going) going.abort();
    going = new AbortController();
    const list = document.getElementById("timeline");
    if (list && list.dataset.events) follow(list, going.signal);
    const sign = document.getElementById("sign");
    if (sign) sign.elements.token.focus();
    if (sign && sessionStorage.getItem(KEY)) go(location.href, false);
  };

  const plain = (event) => !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.button > 0);
  document.addEventListener("click", async (event) => {
    const link = event.target.closest && event.target.closest("a[href]");
    if (!link || !plain(event) || !sessionStorage.getItem(KEY) || link.origin !== location.origin) return;
    if (link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    if (!link.pathname.startsWith("/v1/")) return go(link.href, true);
    const answer = await ask(link.href, "application/json");
    const text = new Blob([await answer.blob()], { type: "text/plain;charset=utf-8" });
    const url = URL.createObjectURL(text);
    window.open(url, "_blank", "noopener");
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.id === "sign") {
      event.preventDefault();
      sessionStorage.setItem(KEY, form.elements.token.value.trim());
      form.reset();
      return void go(location.href, false);
    }
    // What is empty stays out of the address.
    const url = new URL(form.action);
    for (const [name, value] of new FormData(form)) if (value) url.searchParams.append(name, value);
    event.preventDefault();
    if (sessionStorage.getItem(KEY)) go(url.href, true); else location.assign(url.href);
  });
  addEventListener("popstate", () => { if (sessionStorage.getItem(KEY)) go(location.href, false); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const stops = [...document.querySelectorAll("#timeline a,ol.rows a,section.step")];
    const at = stops.indexOf(document.activeElement);
    const to = (index) => { const stop = stops[Math.min(Math.max(index, 0), stops.length - 1)]; if (stop) { stop.focus(); stop.scrollIntoView({ block: "nearest" }); } };
    const keys = {
      j: () => to(at + 1),
      k: () => to(at < 0 ? 0 : at - 1),
      "/": () => { const of = document.getElementById("of"); if (of) of.focus(); },
      t: () => { const link = document.getElementById("to-timeline"); if (link) link.click(); },
      d: () => { const link = document.getElementById("to-decisions"); if (link) link.click(); },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  begin();
})();
