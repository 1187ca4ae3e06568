// The order of a table's rows, newest first: by a key of numbers where there is one, else by when they came.

/** Keys of rows in order. Adding and removing one costs a binary search, as a table may have 100,000. */
export class Order {
  #entries = new Map() // key → its entry
  #sorted = [] // entries, the oldest first: what comes goes to the end
  #names
  #count = 0

  /** `names` are those of the key columns; `rows` is a Map from key to row. */
  constructor(names, rows) {
    this.#names = names
    for (const [key, row] of rows) this.#sorted.push(this.#entry(key, row))
    this.#sorted.sort(compare)
  }

  add(key, row) {
    const entry = this.#entry(key, row)
    this.#sorted.splice(this.#place(entry), 0, entry)
  }

  remove(key) {
    const entry = this.#entries.get(key)
    this.#entries.delete(key)
    this.#sorted.splice(this.#place(entry), 1)
  }

  /** The keys, the newest first. */
  *newest() {
    for (let at = this.#sorted.length - 1; at >= 0; at -= 1) yield this.#sorted[at].key
  }

  #entry(key, row) {
    const values = this.#names.map(name => row[name])
    const entry = { key, values: values.every(isNumber) ? values : [], number: this.#count++ }
    this.#entries.set(key, entry)
    return entry
  }

  #place(entry) {
    let [low, high] = [0, this.#sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (compare(this.#sorted[middle], entry) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** One that JavaScript cannot hold is a string. */
const isNumber = value => typeof value === "number" || /^-?[\d.]{16,}$/.test(value)

/** A total order, whatever the values are: those without numbers come first. */
const compare = (one, other) => {
  if (one.values.length !== other.values.length) return one.values.length - other.values.length
  for (const [at, value] of one.values.entries()) {
    const difference = Number(value) - Number(other.values[at])
    if (difference) return difference
    // As numbers of JavaScript they are the same, so their texts have the same length.
    if (value !== other.values[at]) return String(value) < String(other.values[at]) ? -1 : 1
  }
  return one.number - other.number
}
