// The feed and the watched tables: each has a tab. Where there is room, the feed stays beside the table that is open.

import { Grid } from "/grid.js"
import { Tabs } from "/tabs.js"

const $ = id => document.getElementById(id)
const room = matchMedia("(min-width: 60rem) and (min-height: 38rem)")

/** Shows the panels, at first the table of the name `opened` or, if that is null, the feed; calls `onOpen` for each. */
export class Views {
  /** The name of the table that is shown, or is to be once the hub has told which there are; null for the feed. */
  opened
  #hub
  #onOpen
  #grid
  #tabs

  constructor(hub, opened, onOpen) {
    this.opened = opened
    this.#hub = hub
    this.#onOpen = onOpen
    this.#grid = new Grid(hub)
    this.#tabs = new Tabs($("tabs"), entry => {
      this.#open(entry)
      this.#refresh()
    })
    hub.addEventListener("state", ({ detail }) => detail.state === "open" && this.#refresh())
    if (opened) {
      // Until the hub has answered; so that the page need not be rearranged then.
      this.#tabs.offer([{ table: opened }])
      this.#arrange(this.#tabs.select(opened))
    }
    room.addEventListener("change", () => this.#arrange(this.#tabs.select(this.opened)))
  }

  search(text) {
    this.#grid.search(text)
  }

  pause(paused) {
    this.#grid.pause(paused)
  }

  /** Asks which tables are watched. The one that is to be shown has a tab even if it is not. */
  async #refresh() {
    const tables = await this.#hub.tables().catch(() => null)
    if (!tables) return
    const name = this.opened
    const found = tables.find(({ table }) => table === name || table === `public.${name}`)
    const shown = name && !found ? [...tables, { table: name }] : tables
    this.#tabs.offer(shown)
    if (name) this.#open(found ?? shown.at(-1))
  }

  #open(entry) {
    this.opened = entry?.table ?? null
    this.#arrange(this.#tabs.select(this.opened))
    this.#onOpen()
    if (entry) this.#grid.open(entry)
    else this.#grid.close()
  }

  /** Shows the panel of the chosen `tab`, and the feed's too where there is room. */
  #arrange(tab) {
    const table = tab !== $("feed-tab")
    const both = table && room.matches
    const feed = $("feed-panel")
    $("table-panel").hidden = !table
    if (table) $("table-panel").setAttribute("aria-labelledby", tab.id)
    feed.hidden = table && !both
    feed.role = both ? "region" : "tabpanel" // a tab shows one panel
    feed.setAttribute("aria-labelledby", both ? "feed-name" : "feed-tab")
    $("feed-name").hidden = !both
    $("views").classList.toggle("both", both)
    for (const id of ["only", "clear"]) $(id).classList.toggle("away", feed.hidden)
  }
}
