// The head of the page: how the connection is, and what comes through it.

import { number } from "/format.js"

const SECONDS = 60
const [WIDTH, HEIGHT] = [120, 28]
const $ = id => document.getElementById(id)

/** Shows the state of `hub`, and of its Postgres as its reports have it. */
export class Status {
  #hub
  #postgres = "connected"

  constructor(hub) {
    this.#hub = hub
    hub.addEventListener("state", ({ detail }) => {
      this.#postgres = "connected"
      this.#show(detail)
    })
    this.#show(hub)
  }

  /** The hub's report on itself. */
  report({ clients, listener }) {
    $("clients").textContent = number.format(clients)
    $("clients-label").textContent = clients === 1 ? "client" : "clients"
    if (listener === this.#postgres) return
    this.#postgres = listener
    this.#show(this.#hub)
  }

  #show({ state, delay, code }) {
    const well = this.#postgres === "connected"
    const texts = {
      connecting: "connecting",
      open: well ? "connected" : "connected, but the hub has lost Postgres",
      waiting: `connection lost, next try in ${Math.max(1, Math.round((delay ?? 0) / 1000))} s`,
      closed: `closed for good${code ? ` (${code})` : ""}; reload the page`,
    }
    $("state").dataset.state = state === "open" && !well ? "waiting" : state
    $("state-text").textContent = texts[state]
    if (state !== "open") $("clients").textContent = "–"
  }
}

/** Events a second, of which `count` tells how many there were so far, as a number and over the last minute. */
export class Rate {
  #count
  #rates = new Array(SECONDS).fill(0)
  #counted = 0
  #countedAt = performance.now()

  constructor(count) {
    this.#count = count
    setInterval(() => this.#next(), 1_000)
  }

  #next() {
    // A page in the background is called less often than once a second.
    const now = performance.now()
    const count = this.#count()
    this.#rates.push(Math.round(((count - this.#counted) * 1_000) / (now - this.#countedAt)))
    this.#rates.shift()
    this.#counted = count
    this.#countedAt = now
    $("rate").textContent = number.format(this.#rates.at(-1))
    this.draw()
  }

  draw() {
    const canvas = $("spark")
    const scale = devicePixelRatio || 1
    canvas.width = WIDTH * scale
    canvas.height = HEIGHT * scale
    canvas.style.width = `${WIDTH}px`
    canvas.style.height = `${HEIGHT}px`
    const pen = canvas.getContext("2d")
    pen.scale(scale, scale)
    pen.fillStyle = getComputedStyle(canvas).color
    const most = Math.max(1, ...this.#rates)
    this.#rates.forEach((rate, index) => {
      const size = Math.max(1, (rate / most) * (HEIGHT - 2))
      pen.fillRect(index * 2, HEIGHT - size, 1.4, size)
    })
  }
}
