// pghub's client: follows channels of a hub through lost connections. No DOM, and nothing but the modules beside it.
//
//   import { connect } from "http://127.0.0.1:8080/client.js"
//   const hub = connect()
//   const orders = hub.subscribe("orders", event => …, { last: 20, onGap: gap => … })
//   const id = await hub.publish("chat", { text: "hi" })
//   const table = hub.table("orders", { onChange: change => … }) // a live copy of a watched table, in table.rows
//
// What is durable comes exactly once, and in order, however often the connection is lost: the client knows how far it
// has got, as a cursor of the hub's, and has the rest replayed. What came by NOTIFY meanwhile is lost, as a gap tells.

import { Auth } from "./auth.js"
import { delayBefore, STEADY } from "./backoff.js"
import { HubError } from "./errors.js"
import { refusal } from "./lines.js"
import { isLong, parseExact } from "./numbers.js"
import { stream } from "./stream.js"
import { Table } from "./table.js"

export { delayBefore, HubError, stream }

/** Close codes after which coming back is no use, */
const FINAL = new Set([1002, 1003, 1007, 1008, 1009])
/** and those after which it is with another token only. */
const TOKENS = { __proto__: null, 4401: "The hub was shown no token.", 4403: "The token grants nothing.", 4440: "The token has expired." }
const DRAIN = 1001
const DRAIN_SPREAD = 5_000
const HANDSHAKE_TIMEOUT = 10_000
const MOST_OUTSTANDING = 256
const MOST_NAMES = 1_000 // in one subscribe
const MOST_ASKS = 16 // subscribes that wait for their answer: so many the hub replays for at a time

/**
 * A connection to the hub at `url`, by default the one that this module was loaded from.
 *
 * `token` is for a hub that asks who one is: a token, or a function that returns one, or a promise of one, whenever one
 * is needed: at first, before the last one runs out (it is renewed while all goes on), and when one was refused, with
 * the HubError that says why. A function that throws is asked again later, as a lost connection is made again; if it
 * throws a HubError, or returns none or the very one that was refused, the connection ends.
 *
 * Throws what WebSocket throws for a URL that is none.
 */
export const connect = (url = defaultUrl(), { token } = {}) => new Hub(url, new Auth(token))

const isPattern = name => name.includes("*")
const WILD = { __proto__: null, "*": "[^.]*", "**": ".*" }

/** A test for channels by the name of a subscription, which is a channel, or a pattern of words between dots. */
export const matcher = name => {
  if (!isPattern(name)) return channel => channel === name
  const words = name.split(".").map(word => WILD[word] ?? word.replace(/[\\^$.|?+()[\]{}*]/g, "\\$&"))
  const regex = new RegExp(`^${words.join("\\.")}$`, "s")
  return channel => regex.test(channel) && !/^(\$|hub_)/.test(channel) // the hub's own are never meant
}

const defaultUrl = () => {
  const url = new URL("/ws", import.meta.url)
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:"
  return url.href
}

/**
 * Keeps one websocket open and what was subscribed to, subscribed.
 *
 * Events (CustomEvent, with `detail`): "state" ({state, delay?, code?}), "events" (those of one frame),
 * "gap" ({channels, reason, dropped}), "resumed" ({channels, replayed, recovered}: after a lost connection these are
 * live again, so many durable events were replayed, and whether that is all there were), "error" (a HubError that
 * belongs to no request). States: "connecting", "open", "waiting" (a lost connection, to be made again after `delay`
 * milliseconds), "closed" (for good).
 *
 * Each subscription is at one of three places: live, where it shares the hub's cursor with all others that are; in a
 * subscribe that was not answered yet, with that one's own; or, without a connection, at its own `since` or `last`.
 */
export class Hub extends EventTarget {
  #url
  #auth
  #socket = null
  #heartbeat = null // of the hub that has said welcome, in milliseconds
  #welcome = null // once it lets this client in
  #attempt = 0
  #refusals = 0 // of tokens in a row
  #openedAt = 0
  #timer = null
  #silence = null
  #nextId = 1
  #requests = new Map() // id → {resolve, reject, publish?}, or {ask} for a subscribe
  #outstanding = 0
  #waiting = [] // publishes that go out when one of the outstanding is answered
  #channels = new Map() // name → Set of subscriptions
  #patterns = new Map() // those of the names that are patterns → their tests
  #cursor = null
  #asked = 0 // subscribes that wait for their answer
  #queue = [] // those that go out when one of these is answered

  constructor(url, auth = new Auth()) {
    super()
    this.#url = url
    this.#auth = auth
    this.state = "connecting"
    this.#open()
    globalThis.addEventListener?.("online", this.#online)
  }

  /** What the hub said of itself when the connection was made; null before. */
  get welcome() {
    return this.#welcome
  }

  /**
   * How far all live subscriptions have got, as what `since` takes on another day; null before the first is live.
   *
   * For one that may be in a replay, ask the subscription itself.
   */
  get cursor() {
    return this.#cursor
  }

  /**
   * Calls `onEvent` with each event ({channel, id, at, payload, tags}) of `channel`, and `onGap` where some were lost.
   *
   * `channel` may be a pattern: `orders.*` means one word more, `orders.**` one or more. Patterns mean durable events
   * only; with `ephemeral: false` so does a channel. Durable events come from now on, unless `since` (a cursor) or
   * `last` (a number, the newest so many) asks for earlier ones; each subscription gets its own. With `exact: true` a
   * number that JavaScript cannot hold with all its digits comes as a string: its text.
   *
   * With one of `within` (a GeoJSON polygon), `bbox` ([west, south, east, north]) and `near` ({point, meters}) come only
   * events whose place has a point in common with that fence, and no NOTIFYs. A name has one fence: while it has another
   * subscription, one with another fence, or with none, is refused ("bad_place"). Where a second subscription of this
   * connection, a pattern, brings the same channel, the hub sends what either of them means, and both get all of it.
   *
   * Several subscriptions of one channel are one on the wire. `ready` resolves when the hub has confirmed the first
   * time, and rejects with a HubError where it refuses (the subscription is closed then) or is closed before. `onEnd`
   * is called with the HubError that ends it, at whatever time, unless the page itself closes it.
   */
  subscribe(channel, onEvent, options = {}) {
    if (this.state === "closed") throw new HubError("closed", "This connection was closed.")
    const hub = { cursor: () => this.#cursor, leave: () => this.#leave(subscription) }
    const subscription = new Subscription(channel, onEvent, options, hub)
    const others = this.#named(channel)
    if (others.some(each => each.fenceText !== subscription.fenceText)) return refusedFence(subscription)
    this.#channels.set(channel, new Set([...others, subscription]))
    if (isPattern(channel)) this.#patterns.set(channel, matcher(channel))
    if (this.#welcome) this.#join(subscription, others)
    return subscription
  }

  /**
   * A live copy of the table `name`, which `hub.watch` has to watch in Postgres: a Table, see there.
   *
   * `onReset` is called with all rows (a Map from key to row) once they were read, each time, and after a TRUNCATE;
   * `onChange` with each change that was applied since ({op: "insert", "update" or "delete", key, row, old}); `onState`
   * with each new state; `onError` with the HubError that the copy failed for. `max` is how many rows it may have, by
   * default 100,000: beyond that it fails. `ready` resolves with the table when it is live for the first time, and
   * rejects if it fails or is closed before.
   */
  table(name, options = {}) {
    if (this.state === "closed") throw new HubError("closed", "This connection was closed.")
    const headers = () => this.#auth.headers
    return new Table(name, options, { hub: this, headers, url: this.#resource(`watched/${encodeURIComponent(name)}`) })
  }

  /** The tables that are watched and may be read, each {table, channel, key, columns}. Rejects where there is no hub. */
  async tables() {
    const response = await this.fetch("watched")
    return (await response.json()).tables
  }

  /**
   * What the hub answers at `path`, such as "events?last=5", to who shows this client's token; else as `fetch`.
   *
   * Rejects with a HubError where the hub refuses, and as `fetch` does where there is no hub.
   */
  async fetch(path, { headers, ...options } = {}) {
    const shown = { ...this.#auth.headers, ...headers }
    const response = await fetch(this.#resource(path), { cache: "no-store", ...options, headers: shown })
    if (!response.ok) throw await refusal(response)
    return response
  }

  /**
   * Publishes; resolves with the event's id after the commit, or with null for a NOTIFY, which `durable: false` makes.
   *
   * Rejects with a HubError, or with a TypeError where `payload` cannot be written as JSON. The code "disconnected"
   * means that nobody knows whether it happened. With a `key`, a string of the page's own making, it may be published
   * again all the same: within a day the hub takes each key once, and answers with the same id.
   */
  publish(channel, payload, { durable = true, tags, key } = {}) {
    if (!this.#welcome) return Promise.reject(new HubError("disconnected", "There is no connection to the hub."))
    return new Promise((resolve, reject) => {
      const answer = { resolve: message => resolve(message.event), reject, publish: true }
      const id = this.#nextId++
      const text = JSON.stringify({ type: "publish", channel, payload, durable, tags, key, id })
      const send = () => {
        this.#outstanding += 1
        this.#send(id, text, answer)
      }
      if (this.#outstanding < MOST_OUTSTANDING) send()
      else if (this.#waiting.length < 10 * MOST_OUTSTANDING) this.#waiting.push({ send, reject })
      else reject(new HubError("too_many", "Too many events wait to be published."))
    })
  }

  /** Ends the connection for good. */
  close() {
    this.#end("This connection was closed.")
  }

  #resource(path) {
    const url = new URL(this.#url, globalThis.location)
    url.protocol = url.protocol.replace("ws", "http")
    return new URL(path, url)
  }

  // The connection

  #open() {
    clearTimeout(this.#timer)
    this.#set("connecting")
    const socket = new WebSocket(this.#url, "pghub.v1")
    this.#socket = socket
    socket.onmessage = message => this.#socket === socket && this.#receive(message.data)
    socket.onclose = close => this.#socket === socket && this.#closed(close.code)
    this.#expect(HANDSHAKE_TIMEOUT)
  }

  #closed(code) {
    // A hub that welcomes and then turns away must not be asked again every half second.
    if (this.#welcome && performance.now() - this.#openedAt > STEADY) this.#attempt = 0
    this.#drop()
    if (FINAL.has(code)) return this.#end(`The hub closed the connection for good, with code ${code}.`, code)
    if (code in TOKENS && !this.#mayShowAnother(code)) return this.#end(TOKENS[code], code)
    if (this.#auth.asking) return this.#waitForToken(code)
    this.#wait(code === DRAIN ? Math.random() * DRAIN_SPREAD : delayBefore(this.#attempt++), code)
  }

  #wait(delay, code) {
    this.#timer = setTimeout(() => this.#open(), delay)
    this.#set("waiting", { delay, code })
  }

  /** Lets go of the socket, and tells those who wait for an answer that none will come. */
  #drop(error = new HubError("disconnected", "The connection was lost before the hub answered.")) {
    clearTimeout(this.#silence)
    this.#auth.stop()
    const socket = this.#socket
    this.#socket = null
    this.#heartbeat = null
    this.#welcome = null
    for (const each of this.#all()) {
      if (each.live) each.goOn(this.#cursor, { replayed: 0, recovered: true })
      else if (each.ask) each.goOn(each.ask.cursor, each.ask.resume)
    }
    this.#outstanding = this.#asked = 0
    const requests = [...this.#requests.values(), ...this.#waiting]
    this.#requests.clear()
    this.#waiting = []
    this.#queue = []
    if (socket && socket.readyState < WebSocket.CLOSING) socket.close()
    for (const { reject } of requests) reject?.(error)
  }

  #end(message, code) {
    if (this.state === "closed") return
    this.state = "closed" // for those who hear of the end before the others
    clearTimeout(this.#timer)
    globalThis.removeEventListener?.("online", this.#online)
    const error = new HubError("closed", message)
    this.#drop(error)
    for (const each of this.#all()) each.end(error)
    this.#channels.clear()
    this.#patterns.clear()
    this.#set("closed", { code })
  }

  #online = () => {
    if (this.state === "waiting") this.#open()
  }

  #set(state, detail = {}) {
    this.state = state
    this.#tell("state", { state, ...detail })
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }

  /** A hub shows a sign of life every heartbeat; after two without one the connection is taken for dead. */
  #expect(milliseconds) {
    clearTimeout(this.#silence)
    this.#silence = setTimeout(() => this.#closed(0), milliseconds)
  }

  // What comes in

  #receive(text) {
    let message
    try {
      message = JSON.parse(text)
    } catch {
      return
    }
    if (this.#heartbeat) this.#expect(2 * this.#heartbeat)
    switch (message?.type) {
      case "welcome":
        return this.#welcomed(message)
      case "events":
        return this.#events(message, text)
      case "gap":
        return this.#gap(message)
      case "cursor":
        return this.#reach(message.cursor)
      case "error":
        if (message.id === null && message.code === "forbidden") return this.#revoked(message)
        return this.#answer(message)
      case "authenticated":
      case "subscribed":
      case "unsubscribed":
      case "published":
      case "pong":
        return this.#answer(message)
    }
  }

  #welcomed(message) {
    this.#openedAt = performance.now()
    this.#heartbeat = 1_000 * message.heartbeat
    this.#expect(2 * this.#heartbeat)
    if (message.auth === "required") this.#authenticate(message)
    else this.#begin(message)
  }

  #begin(welcome) {
    this.#welcome = welcome
    this.#ask(this.#all())
    this.#set("open")
  }

  // Tokens

  /** Shows the token; `welcome` is what the hub said. The first time nothing else goes on meanwhile, later all does. */
  async #authenticate(welcome) {
    const socket = this.#socket
    const still = () => this.#socket === socket
    const failed = error => {
      if (error instanceof HubError) this.#end(error.message, 4401)
      else if (still()) this.#closed(0)
    }
    const token = await this.#auth.get().catch(failed)
    if (!token || !still()) return // whoever took the connection away has seen to the next one
    const reject = error => still() && this.#untrusted(error, welcome)
    this.#request({ type: "auth", token }, { resolve: message => this.#authenticated(message, welcome), reject })
  }

  #authenticated({ expires }, welcome) {
    this.#auth.expire(expires, () => {
      this.#auth.spoil()
      this.#authenticate(welcome)
    })
    this.#refusals = 0
    if (!this.#welcome) this.#begin(welcome)
  }

  #untrusted(error, welcome) {
    if (error.code !== "unauthenticated") return this.#closed(0)
    this.#auth.spoil(error)
    if (this.#refusals++) this.#closed(4401) // whoever gives out such tokens may go on for ever
    else this.#authenticate(welcome)
  }

  #mayShowAnother(code) {
    if (code !== 4401) this.#auth.spoil(new HubError("unauthenticated", TOKENS[code]))
    return this.#auth.renewable
  }

  /** Somebody is being asked for a token: no need to trouble the hub before there is one. */
  #waitForToken(code) {
    this.#set("waiting", { code })
    const waits = () => this.state === "waiting" && !this.#socket
    this.#auth.asking.then(
      () => waits() && this.#open(),
      () => waits() && this.#wait(delayBefore(this.#attempt++), code),
    )
  }

  /** The hub has dropped these, which a new token no longer grants. */
  #revoked({ code, message, channels }) {
    const error = new HubError(code, message, channels)
    const ended = channels.flatMap(name => this.#named(name))
    for (const each of ended) this.#remove(each)
    for (const each of ended) each.end(error)
    this.#tell("error", error)
  }

  /** Delivers, and then moves the cursor: nothing comes between, so that an event and its cursor are never apart. */
  #events(message, text) {
    const at = this.#place(message)
    if (!at) return
    const { events } = message
    if (at.ask?.resume) at.ask.resume.replayed += events.length
    this.#tell("events", events)
    const concerned = new Map() // channel → subscriptions; one that is made meanwhile has come too late
    const long = isLong(text)
    let exact = null
    events.forEach((event, index) => {
      const { channel } = event
      if (!concerned.has(channel)) concerned.set(channel, this.#meaning(channel).filter(at.has))
      for (const each of concerned.get(channel)) {
        if (long && each.exact) exact ??= parseExact(text).events
        each.deliver(each.exact && exact ? exact[index] : event)
      }
    })
    this.#reach(message.cursor, at.ask)
  }

  #gap(message) {
    const at = this.#place(message)
    if (!at) return
    const { channels, reason, dropped, cursor } = message
    if (at.ask?.resume) at.ask.resume.recovered = false
    // Without a cursor it is about what came by NOTIFY, which not everybody wants.
    const concerned = each => at.has(each) && (cursor !== undefined || each.ephemeral)
    this.#miss({ channels, reason, dropped }, channels.flatMap(name => this.#named(name)).filter(concerned))
    this.#reach(message.cursor, at.ask)
  }

  #miss(gap, subscriptions) {
    this.#tell("gap", gap)
    for (const each of subscriptions) each.missed(gap)
  }

  /** Where a message belongs: to the subscribe whose replay it is part of, or to all that is live. */
  #place(message) {
    if (message.for === undefined) return { has: each => each.live }
    const ask = this.#requests.get(message.for)?.ask
    return ask && { ask, has: each => each.ask === ask }
  }

  #reach(cursor, ask) {
    if (cursor === undefined) return
    if (ask) ask.cursor = cursor
    else this.#cursor = cursor
  }

  #answer(message) {
    const request = this.#requests.get(message.id)
    const error = message.type === "error" && new HubError(message.code, message.message, message.channels)
    if (!request) {
      if (error) this.#tell("error", error)
      return
    }
    this.#requests.delete(message.id)
    if (request.ask) return this.#decide(request.ask, message, error)
    if (request.publish) {
      this.#outstanding -= 1
      this.#waiting.shift()?.send()
    }
    if (error) request.reject?.(error)
    else request.resolve?.(message)
  }

  // What goes out

  #request(command, answer) {
    const id = this.#nextId++
    this.#send(id, JSON.stringify({ ...command, id }), answer)
    return id
  }

  #send(id, text, answer) {
    this.#requests.set(id, answer)
    this.#socket.send(text)
  }

  // Subscriptions

  #all() {
    return [...this.#channels.values()].flatMap(subscriptions => [...subscriptions])
  }

  #named(name) {
    return [...(this.#channels.get(name) ?? [])]
  }

  /** Those that mean `channel`, by its name or by a pattern. */
  #meaning(channel) {
    const found = this.#named(channel)
    for (const [pattern, matches] of this.#patterns) if (matches(channel)) found.push(...this.#named(pattern))
    return found
  }

  /** Begins one on this connection; where `others` of its name get all that it wants, the hub need not hear of it. */
  #join(subscription, others) {
    const enough = each => each.ephemeral || !subscription.ephemeral
    const found = isPlain(subscription) ? others.filter(enough) : []
    const asking = found.find(({ ask }) => ask && isPlain(ask))?.ask
    if (found.some(each => each.live)) subscription.confirm()
    else if (asking) asking.add(subscription)
    else this.#ask([subscription])
  }

  /** Subscribes: with one command for all that begin at one place, and one for each that wants the `last` so many. */
  #ask(subscriptions) {
    // Options are the name's on the wire, not the listener's: NOTIFYs come if one of them wants them.
    const durable = name => !isPattern(name) && !this.#named(name).some(each => each.ephemeral)
    const place = each => JSON.stringify([each.since, durable(each.channel), each.resume, each.fenceText])
    const groups = Map.groupBy(subscriptions, each => (each.last === undefined ? place(each) : each))
    for (const group of groups.values()) {
      const named = [...Map.groupBy(group, each => each.channel).values()]
      for (let start = 0; start < named.length; start += MOST_NAMES) {
        this.#queue.push(new Ask(named.slice(start, start + MOST_NAMES).flat(), durable(group[0].channel)))
      }
    }
    this.#askOn()
  }

  #askOn() {
    while (this.#queue.length && this.#asked < MOST_ASKS) {
      const ask = this.#queue.shift()
      const { since, last, fence, names: channels } = ask
      if (!channels.length) continue // they were closed meanwhile
      this.#asked += 1
      const ephemeral = ask.durable ? false : undefined
      this.#request({ type: "subscribe", channels, since, last, ephemeral, ...fence }, { ask })
    }
  }

  #decide(ask, message, error) {
    this.#asked -= 1
    if (error) this.#refused(ask, error)
    else this.#subscribed(ask, message)
    this.#askOn()
  }

  #subscribed({ subscriptions, resume, names }, { cursor, recovered, ephemeral = [] }) {
    this.#reach(cursor)
    for (const each of subscriptions) each.confirm()
    if (!resume || !subscriptions.size) return
    this.#tell("resumed", { channels: names, replayed: resume.replayed, recovered: recovered && resume.recovered })
    // What came by NOTIFY while nobody listened is gone: the hub keeps none of it.
    const listening = [...subscriptions].filter(each => each.ephemeral && ephemeral.includes(each.channel))
    const channels = [...new Set(listening.map(each => each.channel))]
    if (channels.length) this.#miss({ channels, reason: "reconnect", dropped: null }, listening)
  }

  /** A subscribe is all or nothing: the channels that the hub objects to are given up, the others asked for again. */
  #refused(ask, error) {
    if (error.code === "unavailable") return this.#closed(0)
    const all = [...ask.subscriptions]
    const named = all.filter(each => error.channels.includes(each.channel))
    // Cancelled is what an unsubscribe of this client's own took with it: then who is left is innocent.
    const cancelled = error.code === "cancelled"
    const bad = cancelled || named.length ? named : all
    for (const each of all) each.goOn(ask.cursor, ask.resume)
    for (const each of bad) {
      each.end(error)
      this.#remove(each)
    }
    this.#ask(all.filter(each => !bad.includes(each)))
    if (!cancelled) this.#tell("error", error)
  }

  #leave(subscription) {
    subscription.ask?.subscriptions.delete(subscription)
    if (this.#remove(subscription) && this.#welcome) {
      this.#request({ type: "unsubscribe", channels: [subscription.channel] }, {})
    }
  }

  /** Forgets it; returns whether it was the last of its name. */
  #remove(subscription) {
    const { channel } = subscription
    const others = this.#channels.get(channel)
    if (!others?.delete(subscription) || others.size) return false
    this.#channels.delete(channel)
    this.#patterns.delete(channel)
    return true
  }
}

const isPlain = ({ since, last }) => since === undefined && last === undefined

/** Ends one whose name has another fence: on the wire the new one would take the place of the old one, for both. */
const refusedFence = subscription => {
  const text = `"${subscription.channel}" has another fence on this connection, or none. Close that subscription first.`
  queueMicrotask(() => subscription.end(new HubError("bad_place", text, [subscription.channel])))
  return subscription
}

/** One subscribe that the hub has not confirmed: `cursor` is how far its replay has got, if there is one. */
class Ask {
  cursor = null

  constructor(subscriptions, durable) {
    const [{ since, last, resume, fence }] = subscriptions // in this they are all the same
    Object.assign(this, { since, last, durable, fence, resume: resume && { ...resume } })
    this.subscriptions = new Set()
    for (const each of subscriptions) this.add(each)
  }

  get names() {
    return [...new Set([...this.subscriptions].map(each => each.channel))]
  }

  add(subscription) {
    this.subscriptions.add(subscription)
    subscription.ask = this
  }
}

/** One listener's share of a channel. A page has `channel`, `ready`, `cursor` and `close`; the rest is the Hub's. */
class Subscription {
  live = false // confirmed on this connection
  ask = null // the subscribe under way that it is in
  resume = null // {replayed, recovered} since the connection was lost on which it was live
  #onEvent
  #onGap
  #onEnd
  #hub
  #resolve
  #reject

  constructor(channel, onEvent, options, hub) {
    const { onGap, onEnd, since, last, ephemeral = true, exact = false, within, bbox, near } = options
    this.channel = channel
    this.fence = { within: within ?? undefined, bbox: bbox ?? undefined, near: near ?? undefined }
    this.fenceText = JSON.stringify(this.fence) // to compare by
    this.since = since ?? undefined // a page that has stored no cursor yet gives null
    this.last = last ?? undefined
    this.ephemeral = ephemeral && !isPattern(channel)
    this.#onEvent = onEvent
    this.#onGap = onGap
    this.#onEnd = onEnd
    this.exact = exact
    this.#hub = hub
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.ready.catch(() => {}) // who does not ask need not hear
  }

  /** How far this one has got, as what `since` takes; null where there is nothing to go on from. */
  get cursor() {
    return this.live ? this.#hub.cursor() : (this.ask?.cursor ?? this.since ?? null)
  }

  /** Ends it: nothing is delivered any more. */
  close() {
    this.#onEnd = undefined
    this.end(new HubError("closed", "This subscription was closed."))
    this.#hub.leave()
  }

  end(error) {
    const onEnd = this.#onEnd
    this.#onEvent = this.#onGap = this.#onEnd = undefined
    this.#reject(error)
    this.#guard(() => onEnd?.(error))
  }

  confirm() {
    this.live = true
    this.ask = this.resume = null
    this.since = this.last = undefined
    this.#resolve()
  }

  /** Has to be asked for again: from `cursor` on if it has got there, else as the last time. */
  goOn(cursor, resume) {
    this.live = false
    this.ask = null
    this.resume = resume
    if (cursor === null) return
    this.since = cursor
    this.last = undefined
  }

  deliver(event) {
    if (this.ephemeral || event.id !== null) this.#guard(() => this.#onEvent?.(event))
  }

  missed(gap) {
    this.#guard(() => this.#onGap?.(gap))
  }

  /** A listener that throws must not keep the others from their events; the page hears of it all the same. */
  #guard(call) {
    try {
      call()
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }
}
