// A live copy of a watched table: it is read once, and then follows the changes that its channel tells.

import { delayBefore, STEADY } from "./backoff.js"
import { HubError } from "./errors.js"
import { lines } from "./lines.js"
import { parseExact } from "./numbers.js"

const MOST_ROWS = 100_000

/**
 * One table's rows, as they are in Postgres. A page has what is named here; `hub.table` makes it.
 *
 * `rows` is a Map from each row's key, the JSON text of the values of its key columns (`[42]`), to the row, an object
 * that is never changed, only replaced. It always is what the table was at some moment, and goes on in the order in
 * which things happened. A number that JavaScript cannot hold with all its digits is a string there, its text. `name`
 * is what was asked for, `table` the full name, `key` the names of the key columns, `channel` where changes are told;
 * these three are null before the table was read for the first time.
 *
 * States: "loading" (being read, for the first time or again; `rows` are those of before until the new ones are
 * complete), "live", "failed" (for good: `error` says why), "closed". While the hub is away a copy stays "live", as
 * what it missed will be made up for; ask the Hub's own state.
 *
 * What makes it read again, by itself: a change that tells to, one too large to be told, one that does not fit, and any
 * gap. Failures to read are tried again without end, with pauses of at most half a minute, but for refusals: those are
 * final, as are a table without a primary key (code "no_key"), whose changes cannot be told apart, one of more than
 * `max` rows (code "too_large"), and the end of the Hub (code "closed"). A table that was renamed is another one.
 */
export class Table {
  state = "loading"
  error = null
  rows = new Map()
  table = null
  key = null
  channel = null
  #hub
  #url
  #headers
  #max
  #listeners
  #subscription = null
  #reading = null // the AbortController of the request under way
  #timer = null
  #due = false // to be read as soon as there is a hub
  #attempt = 0
  #liveAt = 0
  #resolve
  #reject

  constructor(name, { onChange, onReset, onState, onError, max = MOST_ROWS }, { hub, url, headers }) {
    this.name = name
    this.#hub = hub
    this.#url = url
    this.#headers = headers
    this.#max = max
    this.#listeners = { onChange, onReset, onState, onError }
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.ready.catch(() => {}) // who does not ask need not hear
    hub.addEventListener("state", this.#hubChanged)
    this.#readSoon()
  }

  /** Ends it: nothing is told any more, and `rows` stay as they are. */
  close() {
    if (this.#ended) return
    this.#listeners = {}
    this.#end("closed", new HubError("closed", "This copy of a table was closed."))
  }

  get #ended() {
    return this.state === "failed" || this.state === "closed"
  }

  #fail = error => {
    if (this.#ended) return
    this.error = error
    this.#end("failed", error)
    this.#tell("onError", error)
  }

  #end(state, error) {
    this.#hub.removeEventListener("state", this.#hubChanged)
    this.#stop()
    this.#reject(error)
    this.#set(state)
  }

  /** Lets go of what is under way. */
  #stop() {
    clearTimeout(this.#timer)
    this.#due = false
    this.#reading?.abort()
    this.#reading = null
    this.#subscription?.close()
    this.#subscription = null
  }

  #set(state) {
    if (this.state === state) return
    this.state = state
    this.#tell("onState", state)
  }

  /** A listener that throws must not keep the copy from going on; the page hears of it all the same. */
  #tell(listener, ...detail) {
    try {
      this.#listeners[listener]?.(...detail)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }

  // Reading

  #hubChanged = () => {
    if (this.#hub.state === "closed") this.#fail(new HubError("closed", "The connection to the hub was closed."))
    else if (this.#due) this.#readSoon()
  }

  /** Reads now, or, as a hub that is away has no rows either, once it is back. */
  #readSoon = () => {
    this.#due = this.#hub.state !== "open"
    if (!this.#due) this.#read()
  }

  #readAfter(milliseconds) {
    this.#timer = setTimeout(this.#readSoon, milliseconds)
  }

  /** The rows are no longer known to be those of the table. */
  #again = () => {
    this.#stop()
    if (this.state === "live" && performance.now() - this.#liveAt > STEADY) this.#attempt = 0
    this.#set("loading")
    // Nobody is the only one who was told to.
    if (!this.#ended) this.#readAfter(delayBefore(this.#attempt++))
  }

  async #read() {
    const reading = (this.#reading = new AbortController())
    try {
      const read = await this.#receive(reading)
      if (this.#reading === reading) this.#follow(read)
    } catch (error) {
      if (this.#reading !== reading) return // it was given up
      this.#stop()
      if (error instanceof HubError && error.retryAfter === undefined) this.#fail(error)
      else this.#readAfter(Math.max(delayBefore(this.#attempt++), error.retryAfter ?? 0))
    }
  }

  /** The table's head and its rows, of one moment. Throws a HubError for what another try would not change. */
  async #receive(reading) {
    let head = null
    const rows = new Map()
    const headers = { ...this.#headers(), Accept: "application/x-ndjson" }
    for await (const line of lines(this.#url, headers, reading)) {
      const value = parseExact(line)
      if (head) rows.set(identity(head.key, value), value)
      else head = checked(value)
      if (rows.size > this.#max) throw this.#tooLarge()
    }
    return { head: checked(head), rows }
  }

  /** Goes on from where the rows were read: the hub replays what came after. */
  #follow({ head: { table, key, channel, cursor }, rows }) {
    this.#reading = null
    Object.assign(this, { table, key, channel })
    const options = { since: cursor, ephemeral: false, exact: true, onGap: this.#again, onEnd: this.#refused }
    const subscription = this.#hub.subscribe(channel, this.#apply, options)
    this.#subscription = subscription
    subscription.ready.then(
      () => this.#subscription === subscription && this.#live(),
      () => {}, // onEnd has heard of it
    )
    this.#reset(rows)
  }

  #refused = error => {
    this.#subscription = null // it has ended
    this.#fail(error)
  }

  #live() {
    this.#liveAt = performance.now()
    this.#set("live")
    this.#resolve(this)
  }

  #reset(rows) {
    this.rows = rows
    this.#tell("onReset", rows)
  }

  // Changes

  #apply = ({ payload }) => {
    if (payload?.table !== this.table) return // something else that is told on this channel
    const { op, stub, new: row, old } = payload
    if (op === "truncate") this.#reset(new Map())
    else if (op === "delete" && old) this.#delete(old) // its key is in a stub too
    else if ((op === "insert" || op === "update") && row && !stub) this.#put(op, row)
    else this.#again()
  }

  #put(op, row) {
    const key = identity(this.key, row)
    const old = this.rows.get(key) ?? null
    if ((op === "insert") !== (old === null)) return this.#again()
    this.rows.set(key, row)
    if (this.rows.size > this.#max) this.#fail(this.#tooLarge())
    else this.#tell("onChange", { op, key, row, old })
  }

  #delete(row) {
    const key = identity(this.key, row)
    const old = this.rows.get(key)
    if (!old) return this.#again()
    this.rows.delete(key)
    this.#tell("onChange", { op: "delete", key, row: null, old })
  }

  #tooLarge() {
    return new HubError("too_large", `The table ${this.name} has more than ${this.#max} rows.`)
  }
}

const identity = (key, row) => JSON.stringify(key.map(name => row[name]))

const checked = head => {
  if (!head) throw new TypeError("The hub's answer was empty.")
  if (head.key.length) return head
  throw new HubError("no_key", `The table ${head.table} has no primary key, so its changes cannot be told apart.`)
}
