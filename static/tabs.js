// The tabs: those of the page, and one for each watched table. Arrow keys go from one to the next, Enter opens it.

/**
 * Keeps the tabs in `list`, which has the page's own already, and calls `onChoose` with the one that is chosen, as what
 * `select` takes, and its table.
 *
 * A table is what the hub tells of it: {table, channel, key, columns}.
 */
export class Tabs {
  #list
  #onChoose
  #tables = []

  constructor(list, onChoose) {
    this.#list = list
    this.#onChoose = onChoose
    list.addEventListener("click", ({ target }) => this.#chosen(target.closest("[role=tab]")))
    list.addEventListener("keydown", press => this.#move(press))
    this.select({ view: "feed" })
  }

  /** Offers these tables. Where the selected one is not among them, another is to be selected. */
  offer(tables) {
    this.#tables = tables
    const named = new Map(this.#all.filter(isTable).map(tab => [tab.textContent, tab]))
    const wanted = tables.map(({ table }) => named.get(table) ?? tabOf(table))
    for (const tab of named.values()) if (!wanted.includes(tab)) tab.remove()
    this.#list.append(...wanted.filter(tab => !tab.isConnected))
  }

  /** Marks the tab of this `view`, or else of the `table` of this name, as the chosen one, or the first; returns it. */
  select({ view, table }) {
    const all = this.#all
    const means = view ? tab => tab.dataset.view === view : tab => isTable(tab) && tab.textContent === table
    const chosen = all.find(means) ?? all[0]
    for (const tab of all) {
      tab.ariaSelected = String(tab === chosen)
      tab.tabIndex = tab === chosen ? 0 : -1
    }
    chosen.scrollIntoView({ block: "nearest", inline: "nearest" })
    return chosen
  }

  get #all() {
    return [...this.#list.querySelectorAll("[role=tab]")]
  }

  #chosen(tab) {
    if (!tab) return
    const { view } = tab.dataset
    if (view) return this.#onChoose({ view }, null)
    const entry = this.#tables.find(({ table }) => table === tab.textContent)
    this.#onChoose({ table: entry.table }, entry)
  }

  #move(press) {
    const all = this.#all
    const at = all.indexOf(press.target)
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }
    const next = steps[press.key]
    if (at < 0 || next === undefined) return
    press.preventDefault()
    all.at(next % all.length).focus()
  }
}

const isTable = tab => tab.dataset.view === undefined

let made = 0 // tabs so far
const tabOf = name => {
  const tab = document.createElement("button")
  tab.type = "button"
  tab.role = "tab"
  tab.id = `table-tab-${made++}`
  tab.ariaSelected = "false"
  tab.tabIndex = -1
  tab.setAttribute("aria-controls", "table-panel")
  tab.textContent = name
  return tab
}
