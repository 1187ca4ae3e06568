// A watched table in the dashboard: its newest rows as they change, and the state that its copy is in.

import { Order } from "/order.js"
import { Sheet, textOf } from "/sheet.js"

const DRAWN = 200 // rows
const $ = id => document.getElementById(id)
const number = new Intl.NumberFormat("en")

/** Shows one table at a time, in the panel of the page that is made for it. */
export class Grid {
  #hub
  #sheet = new Sheet($("table-head"), $("table-body"))
  #name = null
  #copy = null // the Table that is shown; null for one that is not watched
  #columns = []
  #key = []
  #order = new Order([], new Map())
  #fresh = new Set() // keys that were inserted since the last drawing
  #texts = new WeakMap() // row → what a search looks at
  #wanted = ""
  #paused = false
  #drawing = false

  constructor(hub) {
    this.#hub = hub
    hub.addEventListener("state", () => this.#draw())
  }

  /** Shows `table`, as the hub told of it: {table, key, columns}. Without columns it is not watched; that is said. */
  open({ table, key, columns }) {
    if (this.#name === table && (this.#copy ? this.#copy.state !== "failed" : !columns)) return // it is shown already
    this.close()
    this.#name = table
    $("table-name").textContent = table
    if (columns) return this.#follow(table, key, columns)
    this.#tell("closed", "not watched")
    this.#say(`The table ${table} is not watched. In psql:`, `SELECT hub.watch('${table.replaceAll("'", "''")}');`)
  }

  #follow(table, key, columns) {
    this.#key = key
    this.#columns = columns
    this.#sheet.show(columns, key)
    this.#copy = this.#hub.table(table, {
      onReset: rows => this.#reset(rows),
      onChange: change => this.#change(change),
      onState: () => this.#draw(),
    })
    this.#draw()
  }

  close() {
    this.#name = null
    this.#copy?.close()
    this.#copy = null
    this.#order = new Order([], new Map())
    this.#fresh.clear()
    this.#sheet.show([], [])
    $("table-count").textContent = ""
    this.#say("")
  }

  search(text) {
    this.#wanted = text.toLowerCase()
    this.#draw()
  }

  /** Holds what is drawn, or goes on with what has become of it. */
  pause(paused) {
    this.#paused = paused
    this.#draw()
  }

  #reset(rows) {
    this.#order = new Order(this.#copy.key, rows)
    this.#fresh.clear()
    this.#draw()
  }

  #change({ op, key, row }) {
    if (op === "insert") {
      this.#order.add(key, row)
      this.#fresh.add(key)
    } else if (op === "delete") {
      this.#order.remove(key)
      this.#fresh.delete(key)
    }
    this.#draw()
  }

  // Drawing: once a frame at most, from what the copy is then

  #draw() {
    if (this.#drawing) return
    this.#drawing = true
    requestAnimationFrame(() => {
      this.#drawing = false
      if (!this.#copy) return
      this.#tell(...this.#state())
      if (!this.#paused) this.#show()
    })
  }

  #tell(state, text) {
    if ($("table-state").dataset.state !== state) $("table-state").dataset.state = state
    if ($("table-state-text").textContent !== text) $("table-state-text").textContent = text
  }

  #state() {
    const { state, table } = this.#copy
    if (state === "failed") return ["closed", "failed"]
    if (this.#hub.state !== "open") return ["waiting", "reconnecting"]
    if (state === "loading") return ["connecting", table ? "reading again" : "reading"]
    return ["open", "live"]
  }

  #show() {
    const { rows } = this.#copy
    const { found, matching } = this.#find(rows)
    const columns = this.#columnsOf(rows)
    if (!this.#sheet.has(columns)) this.#sheet.show(columns, this.#key)
    this.#sheet.draw(found, this.#fresh)
    this.#fresh.clear()
    $("table-count").textContent = this.#summary(rows.size, matching)
    this.#say(found.size ? "" : this.#absence())
  }

  /** The newest rows that match the search, and how many do in all. */
  #find(rows) {
    const found = new Map()
    let matching = 0
    for (const key of this.#order.newest()) {
      const row = rows.get(key)
      if (this.#wanted && !this.#textOf(row).includes(this.#wanted)) continue
      matching += 1
      if (found.size < DRAWN) found.set(key, row)
      else if (!this.#wanted) break
    }
    return { found, matching }
  }

  #textOf(row) {
    const known = this.#texts.get(row)
    if (known !== undefined) return known
    const text = Object.values(row).map(textOf).join("\n").toLowerCase()
    this.#texts.set(row, text)
    return text
  }

  /** The columns, which may have become others when the table was read again; new ones stand behind. */
  #columnsOf(rows) {
    const [row] = rows.values()
    if (!row) return this.#columns
    const names = Object.keys(row)
    const known = this.#columns.filter(name => names.includes(name))
    this.#columns = [...known, ...names.filter(name => !known.includes(name))]
    return this.#columns
  }

  #summary(all, matching) {
    const rows = `${number.format(all)} ${all === 1 ? "row" : "rows"}`
    if (this.#wanted) return `${number.format(matching)} of ${rows} match`
    return all > DRAWN ? `the newest ${DRAWN} of ${rows}` : rows
  }

  /** Why there is no row to be seen. */
  #absence() {
    const { rows, error, state } = this.#copy
    if (error) return error.message
    if (state === "loading") return ""
    return rows.size ? "No row matches." : "The table is empty."
  }

  /** What stands in place of rows, and a statement to copy. */
  #say(text, code = "") {
    $("table-empty").hidden = !text
    $("table-empty-text").textContent = text
    $("table-empty-code").textContent = code
    $("table-empty-code").parentElement.hidden = !code
  }
}
