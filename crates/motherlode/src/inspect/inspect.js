// Keys, and figures that keep up with others' work. Every page works without it.
"use strict";

const stops = () => [...document.querySelectorAll("[data-stop]")];

function move(by) {
  const all = stops();
  if (all.length === 0) return;
  const here = all.indexOf(document.activeElement);
  const place = here < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(here + by, 0), all.length - 1);
  all[place].focus({ preventScroll: true });
  all[place].scrollIntoView({ block: "nearest" });
}

let sent = false;
document.addEventListener("submit", (event) => {
  // A second key press must not answer the next pair unseen.
  if (event.target.method === "post") {
    if (sent) event.preventDefault();
    sent = true;
  }
});
addEventListener("pageshow", () => { sent = false; });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && /^[0-2]$/.test(event.key)) return;
  const writes = event.target.matches("input, select, textarea");
  if (writes) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const dialog = document.getElementById("keys");
  if (event.key === "?") {
    dialog?.showModal();
  } else if (dialog?.open) {
    return;
  } else if (event.key === "j" || event.key === "k") {
    move(event.key === "j" ? 1 : -1);
  } else {
    const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!target) return;
    if (target.matches("input")) {
      target.focus();
      target.select();
    } else {
      target.click();
    }
  }
  event.preventDefault();
});

document.querySelector("[data-first]")?.focus();

async function refresh(id) {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById(id);
  const old = document.getElementById(id);
  if (fresh && old && fresh.innerHTML !== old.innerHTML) old.replaceWith(fresh);
}

const live = document.querySelector("[data-live]");
if (live) setInterval(refresh, 3000, live.id);
