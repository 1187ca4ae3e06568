// pghub's client: follows channels of a hub through lost connections. No DOM, no dependencies.
//
//   import { connect } from "http://127.0.0.1:8080/client.js"
//   const hub = connect()
//   const orders = hub.subscribe("orders", event => …, { onGap: gap => … })
//   await hub.publish("chat", { text: "hi" }, { durable: false })

/** Close codes after which coming back is no use. */
const FINAL = new Set([1002, 1003, 1007, 1008, 1009, 4401, 4403, 4440])
const DRAIN = 1001
const DRAIN_SPREAD = 5_000
const FIRST_DELAY = 1_000
const MOST_DELAY = 30_000
const HANDSHAKE_TIMEOUT = 10_000
const STEADY = MOST_DELAY // a connection that lasted this long was a good one: the next delay starts small again
const MOST_OUTSTANDING = 256

/** What the hub refused, or what became of a request. `code` is the hub's, or "disconnected" or "closed". */
export class HubError extends Error {
  constructor(code, message, channels = []) {
    super(message)
    this.name = "HubError"
    this.code = code
    this.channels = channels
  }
}

/** Full jitter: milliseconds before try number `attempt`, counted from 0. */
export const delayBefore = (attempt, random = Math.random) =>
  random() * Math.min(MOST_DELAY, FIRST_DELAY * 2 ** Math.min(attempt, 20))

/**
 * A connection to the hub at `url`, by default the one that this module was loaded from.
 *
 * Throws what WebSocket throws for a URL that is none.
 */
export const connect = (url = defaultUrl()) => new Hub(url)

const defaultUrl = () => {
  const url = new URL("/ws", import.meta.url)
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:"
  return url.href
}

/**
 * Keeps one websocket open and what was subscribed to, subscribed.
 *
 * Events (CustomEvent, with `detail`): "state" ({state, delay?, code?}), "events" (the events of one frame),
 * "gap" ({channels, reason, dropped}), "error" (a HubError that belongs to no request). States: "connecting",
 * "open", "waiting" (a lost connection, to be made again after `delay` milliseconds), "closed" (for good).
 */
export class Hub extends EventTarget {
  #url
  #socket = null
  #welcome = null
  #attempt = 0
  #openedAt = 0
  #timer = null
  #silence = null
  #nextId = 1
  #requests = new Map() // id → {resolve, reject, publish?}
  #outstanding = 0
  #waiting = [] // publishes that go out when one of the outstanding is answered
  #channels = new Map() // name → Set of subscriptions
  #confirmed = new Set() // names that the hub has confirmed on this connection
  #latest = new Map() // name → id of the last subscribe that asked for it
  #known = new Set() // names that were confirmed at some time since they were subscribed to

  constructor(url) {
    super()
    this.#url = url
    this.state = "connecting"
    this.#open()
    globalThis.addEventListener?.("online", this.#online)
  }

  /** What the hub said of itself when the connection was made; null before. */
  get welcome() {
    return this.#welcome
  }

  /**
   * Calls `onEvent` with each event ({channel, id, at, payload, tags}) of `channel`, and `onGap` where some were lost.
   *
   * Several subscriptions of one channel are one on the wire. `ready` resolves when the hub has confirmed the first
   * time, and rejects with a HubError where it refuses (the subscription is closed then) or is closed before.
   */
  subscribe(channel, onEvent, { onGap } = {}) {
    if (this.state === "closed") throw new HubError("closed", "This connection was closed.")
    const subscription = new Subscription(channel, onEvent, onGap, () => this.#leave(subscription))
    const others = this.#channels.get(channel)
    if (others) others.add(subscription)
    else {
      this.#channels.set(channel, new Set([subscription]))
      if (this.#welcome) this.#subscribe([channel])
    }
    if (this.#confirmed.has(channel)) subscription.confirm()
    return subscription
  }

  /**
   * Publishes; resolves with the event's id (null for an ephemeral one) after the commit.
   *
   * Rejects with a HubError, or with a TypeError where `payload` cannot be written as JSON. The code "disconnected"
   * means that nobody knows whether it happened.
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
    const delay = code === DRAIN ? Math.random() * DRAIN_SPREAD : delayBefore(this.#attempt++)
    this.#timer = setTimeout(() => this.#open(), delay)
    this.#set("waiting", { delay, code })
  }

  /** Lets go of the socket, and tells those who wait for an answer that none will come. */
  #drop(error = new HubError("disconnected", "The connection was lost before the hub answered.")) {
    clearTimeout(this.#silence)
    const socket = this.#socket
    this.#socket = null
    this.#welcome = null
    this.#confirmed.clear()
    this.#outstanding = 0
    const requests = [...this.#requests.values(), ...this.#waiting]
    this.#requests.clear()
    this.#waiting = []
    if (socket && socket.readyState < WebSocket.CLOSING) socket.close()
    for (const { reject } of requests) reject(error)
  }

  #end(message, code) {
    if (this.state === "closed") return
    clearTimeout(this.#timer)
    globalThis.removeEventListener?.("online", this.#online)
    const error = new HubError("closed", message)
    this.#drop(error)
    for (const subscriptions of this.#channels.values()) for (const each of subscriptions) each.refuse(error)
    this.#channels.clear()
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
    if (this.#welcome) this.#expect(2_000 * this.#welcome.heartbeat)
    switch (message?.type) {
      case "welcome":
        return this.#welcomed(message)
      case "events":
        return this.#events(message.events)
      case "gap":
        return this.#gap(message)
      case "error":
      case "subscribed":
      case "unsubscribed":
      case "published":
      case "pong":
        return this.#answer(message)
    }
  }

  #welcomed(message) {
    this.#welcome = message
    this.#openedAt = performance.now()
    this.#expect(2_000 * message.heartbeat)
    const names = [...this.#channels.keys()]
    for (let start = 0; start < names.length; start += 100) this.#subscribe(names.slice(start, start + 100))
    this.#set("open")
  }

  #events(events) {
    this.#tell("events", events)
    for (const event of events) {
      for (const subscription of this.#channels.get(event.channel) ?? []) subscription.deliver(event)
    }
  }

  #gap({ channels, reason, dropped }) {
    const gap = { channels, reason, dropped }
    this.#tell("gap", gap)
    for (const name of channels) for (const each of this.#channels.get(name) ?? []) each.missed(gap)
  }

  #answer(message) {
    const request = this.#requests.get(message.id)
    const error = message.type === "error" && new HubError(message.code, message.message, message.channels)
    if (!request) {
      if (error) this.#tell("error", error)
      return
    }
    this.#requests.delete(message.id)
    if (request.publish) {
      this.#outstanding -= 1
      this.#waiting.shift()?.send()
    }
    if (error) request.reject(error)
    else request.resolve(message)
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

  #subscribe(names) {
    // A channel that was left, or left and taken up again meanwhile, is no concern of this answer.
    const wanted = () => names.filter(name => this.#latest.get(name) === id)
    const answer = {
      resolve: () => this.#subscribed(wanted()),
      reject: error => this.#refused(wanted(), error),
    }
    const id = this.#request({ type: "subscribe", channels: names }, answer)
    for (const name of names) this.#latest.set(name, id)
  }

  #subscribed(names) {
    const again = names.filter(name => this.#known.has(name))
    for (const name of names) {
      this.#confirmed.add(name)
      this.#known.add(name)
      for (const subscription of this.#channels.get(name)) subscription.confirm()
    }
    // What was sent while nobody listened is gone: the hub keeps no ephemeral events.
    if (again.length) this.#gap({ channels: again, reason: "reconnect", dropped: null })
  }

  /** A subscribe is all or nothing: the channels that the hub objects to are given up, the others asked for again. */
  #refused(names, error) {
    if (error.code === "disconnected" || error.code === "closed") return
    if (error.code === "unavailable") return this.#closed(0)
    const named = names.filter(name => error.channels.includes(name))
    const bad = named.length ? named : names
    const rest = names.filter(name => !bad.includes(name))
    for (const name of bad) {
      for (const subscription of this.#channels.get(name)) subscription.refuse(error)
      this.#forget(name)
    }
    if (rest.length) this.#subscribe(rest)
    this.#tell("error", error)
  }

  #leave(subscription) {
    const others = this.#channels.get(subscription.channel)
    if (!others?.delete(subscription) || others.size) return
    this.#forget(subscription.channel)
    if (this.#welcome) {
      const ignored = { resolve: () => {}, reject: () => {} }
      this.#request({ type: "unsubscribe", channels: [subscription.channel] }, ignored)
    }
  }

  #forget(name) {
    for (const names of [this.#channels, this.#confirmed, this.#known, this.#latest]) names.delete(name)
  }
}

/** One listener's share of a channel. */
class Subscription {
  #onEvent
  #onGap
  #leave
  #resolve
  #reject

  constructor(channel, onEvent, onGap, leave) {
    this.channel = channel
    this.#onEvent = onEvent
    this.#onGap = onGap
    this.#leave = leave
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.ready.catch(() => {}) // who does not ask need not hear
  }

  /** Ends it: nothing is delivered any more. */
  close() {
    this.#onEvent = this.#onGap = undefined
    this.refuse(new HubError("closed", "This subscription was closed."))
    this.#leave()
  }

  confirm() {
    this.#resolve()
  }

  refuse(error) {
    this.#reject(error)
  }

  deliver(event) {
    this.#guard(() => this.#onEvent?.(event))
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
