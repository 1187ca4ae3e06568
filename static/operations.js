// The hub at work: its own reports, which come on the channel $hub, its channels and its clients.

import { Clients } from "/clients.js"
import { Plots } from "/plots.js"
import { Series } from "/series.js"
import { Tiles } from "/tiles.js"
import { Timeline } from "/timeline.js"
import { Traffic } from "/traffic.js"

/** Shows how `hub` is; what takes time is done while it is `shown` only. */
export class Operations {
  #series = new Series()
  #tiles = new Tiles()
  #plots = new Plots(this.#series)
  #timeline = new Timeline()
  #traffic
  #clients
  #shown = false
  #lost = false

  constructor(hub) {
    this.#traffic = new Traffic(hub)
    this.#clients = new Clients(hub)
    hub.addEventListener("state", ({ detail }) => this.#changed(detail))
  }

  /** What came on the hub's own channel: a report, or something that happened. */
  take(payload) {
    if (payload.kind !== undefined) return this.#timeline.add(payload)
    this.#tiles.draw(this.#series.add(payload, Date.now()))
    this.draw()
  }

  set shown(shown) {
    this.#shown = shown
    this.#traffic.wanted = this.#clients.wanted = shown
    this.draw()
  }

  /** Draws again what is on canvases, whose colours do not change by themselves. */
  draw() {
    if (this.#shown) this.#plots.draw()
  }

  #changed({ state }) {
    if (state === "open" && this.#lost) this.#timeline.add({ kind: "page", text: "connected again" })
    if (state === "waiting" && !this.#lost) this.#timeline.add({ kind: "page", text: "lost the connection to the hub" })
    if (state !== "open") this.#tiles.clear()
    this.#lost = state === "waiting" || (this.#lost && state !== "open")
  }
}
