// Events by server-sent events, for pages that no websocket reaches. Read by fetch: an EventSource shows no token.

import { Auth } from "./auth.js"
import { delayBefore, STEADY } from "./backoff.js"
import { HubError } from "./errors.js"
import { lines } from "./lines.js"

const SILENCE = 60_000 // milliseconds; the hub shows a sign of life every 25 s, if nobody has set it otherwise

/**
 * Calls `onEvent` with each event ({channel, id, at, payload, tags}) of `channels`, names or patterns, until the
 * returned Stream is closed; `onGap` ({channels, reason, dropped}) where some were lost.
 *
 * Durable events come exactly once and in order, from now on or from `since` (a cursor), however often the connection
 * is lost; NOTIFYs that come meanwhile are lost without a word. `url` is the hub's, by default the one that this module
 * was loaded from; `token` is as for `connect`. `onError` is called with the HubError that ends it, if one does.
 */
export const stream = (channels, onEvent, options = {}) => new Stream(channels, onEvent, options)

class Stream {
  /** How far it has got, as what `since` takes; null before the hub has answered. */
  cursor
  #url
  #auth
  #listeners
  #reading = null
  #timer = null
  #attempt = 0
  #closed = false

  constructor(channels, onEvent, { onGap, onError, since = null, token, url = import.meta.url }) {
    this.cursor = since
    this.#auth = new Auth(token)
    this.#listeners = { onEvent, onGap, onError }
    this.#url = new URL("/events", new URL(url, globalThis.location))
    this.#url.search = new URLSearchParams(channels.map(name => ["channel", name]))
    this.#read()
  }

  /** Ends it: nothing is delivered any more. */
  close() {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#reading?.abort()
  }

  async #read() {
    const openedAt = performance.now()
    this.#reading = new AbortController()
    let again = null
    try {
      await this.#receive()
    } catch (error) {
      again = error
    }
    if (this.#closed) return
    if (again?.code === "unauthenticated") return this.#another(again)
    if (again instanceof HubError && again.retryAfter === undefined) return this.#fail(again)
    if (performance.now() - openedAt > STEADY) this.#attempt = 0
    this.#timer = setTimeout(() => this.#read(), Math.max(delayBefore(this.#attempt++), again?.retryAfter ?? 0))
  }

  async #receive() {
    const position = this.cursor === null ? {} : { "Last-Event-ID": this.cursor }
    const headers = { ...this.#auth.headers, ...position, Accept: "text/event-stream" }
    let id = null
    let data = ""
    for await (const line of lines(this.#url, headers, this.#reading, SILENCE)) {
      if (this.#closed) return
      if (line.startsWith("id:")) id = line.slice(3).trimStart()
      else if (line.startsWith("data:")) data += line.slice(5)
      else if (line === "") {
        if (data) this.#deliver(JSON.parse(data))
        if (id !== null) this.cursor = id // after its events: they are never apart
        id = null
        data = ""
      }
    }
  }

  #deliver({ type, events, channels, reason, dropped }) {
    if (type === "events") for (const event of events) this.#tell("onEvent", event)
    else if (type === "gap") this.#tell("onGap", { channels, reason, dropped })
  }

  /** Comes back with the token that it was asked for, or with another one. */
  async #another(refused) {
    if (this.#auth.token !== null) this.#auth.spoil(refused)
    try {
      await this.#auth.get()
    } catch (error) {
      if (error instanceof HubError) return this.#fail(error)
      this.#timer = setTimeout(() => this.#another(refused), delayBefore(this.#attempt++))
      return
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#read(), delayBefore(this.#attempt++))
  }

  #fail(error) {
    this.close()
    this.#tell("onError", error)
  }

  /** A listener that throws must not keep the stream from going on; the page hears of it all the same. */
  #tell(listener, detail) {
    try {
      this.#listeners[listener]?.(detail)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }
}
