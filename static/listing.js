// A table of what goes on in the hub: its lines stay where they are as they change, so that a button stays under a hand.

const cellOf = () => document.createElement("td")

/** Lines in `body`, a tbody. `columns` are functions from an entry to [text, class, title], the latter two optional. */
export class Listing {
  #body
  #columns
  #key
  #finish
  #lines = new Map() // key → line

  /** `key` tells an entry from others; `finish` is called with each new line and its entry, to add to it. */
  constructor(body, columns, key, finish = () => {}) {
    this.#body = body
    this.#columns = columns
    this.#key = key
    this.#finish = finish
  }

  /** Shows these entries, in this order. */
  draw(entries) {
    const wanted = new Map(entries.map(entry => [this.#key(entry), entry]))
    for (const [key, line] of this.#lines) {
      if (wanted.has(key)) continue
      line.remove()
      this.#lines.delete(key)
    }
    const lines = [...wanted].map(([key, entry]) => this.#line(key, entry))
    this.#arrange(lines)
  }

  #line(key, entry) {
    let line = this.#lines.get(key)
    const fresh = !line
    if (fresh) {
      line = document.createElement("tr")
      line.append(...this.#columns.map(cellOf))
      this.#lines.set(key, line)
    }
    this.#columns.forEach((column, at) => write(line.children[at], ...column(entry)))
    if (fresh) this.#finish(line, entry)
    return line
  }

  /** A line that moves would lose the focus, so none does while one of them has it: new ones go to the end then. */
  #arrange(lines) {
    if (this.#body.contains(document.activeElement)) {
      this.#body.append(...lines.filter(line => !line.isConnected))
      return
    }
    let next = this.#body.firstElementChild
    for (const line of lines) {
      if (line === next) next = next.nextElementSibling
      else this.#body.insertBefore(line, next)
    }
  }
}

const write = (cell, text, name = "", title = "") => {
  if (cell.textContent !== text) cell.textContent = text
  if (cell.className !== name) cell.className = name
  if (cell.title !== title) cell.title = title
}
