// What the page shows, each by a tab: the feed, the history, the hub itself, and the watched tables. Where there is
// room, the feed stays beside the table that is open.

import { Grid } from "/grid.js"
import { Tabs } from "/tabs.js"

const OWN = ["feed", "past", "hub"]
const $ = id => document.getElementById(id)
const room = matchMedia("(min-width: 60rem) and (min-height: 38rem)")

/** Shows the panels, at first the one that `address` asks for; calls `onOpen` for each. */
export class Views {
  #hub
  #operations
  #past
  #onOpen
  #grid
  #tabs
  #chosen // {view}, or {table} with the name of one, which may be watched only later

  constructor(hub, { operations, past }, address, onOpen) {
    this.#hub = hub
    this.#operations = operations
    this.#past = past
    this.#onOpen = onOpen
    this.#grid = new Grid(hub)
    const [table, view] = [address.get("table"), address.get("view")]
    this.#chosen = table ? { table } : { view: OWN.includes(view) ? view : "feed" }
    this.#tabs = new Tabs($("tabs"), (chosen, entry) => {
      this.#open(chosen, entry)
      this.#refresh()
    })
    // Until the hub has answered; so that the page need not be rearranged then.
    if (table) this.#tabs.offer([{ table }])
    this.#arrange()
    hub.addEventListener("state", ({ detail }) => detail.state === "open" && this.#refresh())
    room.addEventListener("change", () => this.#arrange())
  }

  /** What the address line has to say to come back here. */
  get address() {
    const { view, table } = this.#chosen
    return table ? [["table", table]] : view === "feed" ? [] : [["view", view]]
  }

  /** Shows one of the page's own. */
  show(view) {
    this.#open({ view }, null)
  }

  search(text) {
    this.#grid.search(text)
  }

  pause(paused) {
    this.#grid.pause(paused)
  }

  /** Asks which tables are watched. The one that is to be shown has a tab even if it is not. */
  async #refresh() {
    if (this.#chosen.view === "past") this.#past.open()
    const tables = await this.#hub.tables().catch(() => null)
    if (!tables) return
    const name = this.#chosen.table
    const found = tables.find(({ table }) => table === name || table === `public.${name}`)
    const entry = name ? (found ?? { table: name }) : null
    this.#tabs.offer(name && !found ? [...tables, entry] : tables)
    if (name) this.#open({ table: entry.table }, entry)
  }

  #open(chosen, entry) {
    this.#chosen = chosen
    this.#arrange()
    this.#onOpen()
    if (entry) this.#grid.open(entry)
    else this.#grid.close()
  }

  /** Shows the panel of the chosen tab, and the feed's too where there is room. */
  #arrange() {
    const { view, table } = this.#chosen
    const tab = this.#tabs.select(this.#chosen)
    const both = Boolean(table) && room.matches
    const feed = $("feed-panel")
    $("table-panel").hidden = !table
    if (table) $("table-panel").setAttribute("aria-labelledby", tab.id)
    feed.hidden = view !== "feed" && !both
    feed.role = both ? "region" : "tabpanel" // a tab shows one panel
    feed.setAttribute("aria-labelledby", both ? "feed-name" : "feed-tab")
    $("feed-name").hidden = !both
    $("views").classList.toggle("both", both)
    for (const id of ["only", "clear"]) $(id).classList.toggle("away", feed.hidden)
    this.#turn(view)
  }

  #turn(view) {
    $("past-panel").hidden = view !== "past"
    $("hub-panel").hidden = view !== "hub"
    $("tools").classList.toggle("away", view === "past" || view === "hub")
    this.#operations.shown = view === "hub"
    if (view === "past") this.#past.open()
  }
}
