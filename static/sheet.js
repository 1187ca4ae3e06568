// A table in the page: a head, and lines that are changed in place. What comes from Postgres is text, never HTML.

const LONGEST = 200 // characters of a cell; its title has more of them
const MONEY = 2 // decimal places up to which a column shows the same number of them in all lines
const FLASH = 1_400 // milliseconds
const FLASHES = 100 // in one drawing: where more has changed, there is nothing to point at
const clip = (text, length = LONGEST) => (text.length > length ? `${text.slice(0, length)}…` : text)
const still = matchMedia("(prefers-reduced-motion: reduce)")

/** Draws rows into `head` (a tr) and `body` (a tbody); what has changed since the last time flashes. */
export class Sheet {
  #head
  #body
  #columns = []
  #drawn = new Map() // key → {line, row, texts}: what stands in the page
  #places = new Map() // column → decimal places
  #changed = [] // lines and cells that are to flash when this drawing is done
  #flashes = new WeakMap() // line or cell → its animation

  constructor(head, body) {
    this.#head = head
    this.#body = body
  }

  /** Begins anew, with these columns; `key` are the names of those that are the primary key. */
  show(columns, key) {
    this.#columns = columns
    this.#drawn.clear()
    this.#places.clear()
    this.#body.replaceChildren()
    this.#head.replaceChildren(...columns.map(name => headingOf(name, key.includes(name))))
  }

  /** Whether it was begun with these columns. */
  has(columns) {
    return columns.length === this.#columns.length && columns.every((name, at) => name === this.#columns[at])
  }

  /** Shows these rows, a Map in the order of the lines. Those whose keys are `fresh` flash as a whole. */
  draw(rows, fresh) {
    const wider = this.#widen(rows)
    const lines = []
    for (const [key, row] of rows) lines.push(this.#line(key, row, { wider, fresh: fresh.has(key) }))
    this.#arrange(lines)
    this.#align([...rows.values()][0])
    this.#flash()
  }

  /** JSON.parse has dropped the zero of 12.50: returns whether some column needs more places than before. */
  #widen(rows) {
    let wider = false
    for (const row of rows.values()) {
      for (const name of this.#columns) {
        const places = placesOf(row[name])
        if (places <= (this.#places.get(name) ?? 0)) continue
        this.#places.set(name, places)
        wider = true
      }
    }
    return wider
  }

  #format(name, value) {
    const places = this.#places.get(name) ?? 0
    return typeof value === "number" && places && places <= MONEY ? value.toFixed(places) : textOf(value)
  }

  #line(key, row, { wider, fresh }) {
    const drawn = this.#drawn.get(key)
    if (!drawn) return this.#add(key, row, fresh)
    if (drawn.row !== row || wider) this.#rewrite(drawn, row)
    return drawn.line
  }

  #add(key, row, fresh) {
    const line = document.createElement("tr")
    const drawn = { line, texts: [] }
    line.append(...this.#columns.map(() => document.createElement("td")))
    this.#write(drawn, row)
    this.#drawn.set(key, drawn)
    if (fresh) this.#changed.push(line)
    return line
  }

  #rewrite(drawn, row) {
    const { row: before, line } = drawn
    this.#write(drawn, row)
    this.#columns.forEach((name, at) => {
      if (textOf(before[name]) !== textOf(row[name])) this.#changed.push(line.children[at])
    })
  }

  #write(drawn, row) {
    drawn.row = row
    this.#columns.forEach((name, at) => {
      const value = row[name]
      const text = this.#format(name, value)
      if (drawn.texts[at] === text) return
      drawn.texts[at] = text
      const cell = drawn.line.children[at]
      cell.textContent = clip(text)
      cell.title = text.length > 24 ? clip(text, 10 * LONGEST) : ""
      cell.className = value === null ? "null" : typeof value === "number" ? "number" : ""
    })
  }

  /** Lets the body have these lines, in this order, and moves as few as it can. */
  #arrange(lines) {
    const wanted = new Set(lines)
    for (const [key, { line }] of this.#drawn) {
      if (wanted.has(line)) continue
      line.remove()
      this.#drawn.delete(key)
    }
    let next = this.#body.firstElementChild
    for (const line of lines) {
      if (line === next) next = next.nextElementSibling
      else this.#body.insertBefore(line, next)
    }
  }

  #align(row) {
    if (!row) return
    const headings = [...this.#head.children]
    this.#columns.forEach((name, at) => headings[at].classList.toggle("number", typeof row[name] === "number"))
  }

  /** One animation each, begun again: a cell may change in every frame. */
  #flash() {
    for (const element of still.matches ? [] : this.#changed.slice(0, FLASHES)) {
      const flash = this.#flashes.get(element) ?? element.animate([{ backgroundColor: "var(--flash)" }, {}], FLASH)
      this.#flashes.set(element, flash)
      flash.currentTime = 0
      flash.play()
    }
    this.#changed = []
  }
}

/** A value as it is shown, and searched. */
export const textOf = value => {
  if (value === undefined) return ""
  return typeof value === "object" ? JSON.stringify(value) : String(value)
}

const placesOf = value =>
  typeof value === "number" && !Number.isInteger(value) ? (String(value).split(".")[1]?.length ?? 0) : 0

const headingOf = (name, isKey) => {
  const heading = document.createElement("th")
  heading.scope = "col"
  heading.textContent = name
  heading.classList.toggle("key", isKey)
  if (isKey) heading.title = "Primary key"
  return heading
}
