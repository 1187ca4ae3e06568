// What happened to the hub and to its Postgres, the newest first.

import { clip, clock } from "/format.js"

const KEPT = 200
const KINDS = { slow_query: "slow query", notice: "Postgres", gap: "gap", listener: "listener", page: "this page" }
const BAD = new Set(["slow_query", "gap", "listener"])
const $ = id => document.getElementById(id)

/** Keeps what has happened since the page was opened. */
export class Timeline {
  /** `kind` is the hub's, or "page"; `text` says what happened; whatever else there is, is shown on demand. */
  add({ kind, at, text, ...details }) {
    const item = $("moment-template").content.firstElementChild.cloneNode(true)
    const when = at ?? new Date().toISOString()
    const time = item.querySelector("time")
    time.dateTime = time.title = when
    time.textContent = clock.format(new Date(when))
    item.querySelector(".kind").textContent = KINDS[kind] ?? String(kind)
    item.classList.toggle("worry", BAD.has(kind))
    item.querySelector(".text").textContent = clip(String(text ?? ""), 300)
    const more = item.querySelector(".more")
    more.hidden = !Object.keys(details).length && String(text).length <= 300
    if (!more.hidden) item.querySelector(".json").textContent = JSON.stringify({ text, ...details }, null, 2)
    const list = $("timeline")
    list.prepend(item)
    while (list.childElementCount > KEPT) list.lastElementChild.remove()
    $("timeline-empty").hidden = true
  }
}
