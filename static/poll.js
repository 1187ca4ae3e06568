// Asks the hub again and again, as long as somebody looks.

const PAUSE = 2_000 // milliseconds after an answer
const REFUSED = 60_000 // and after a refusal: another try does hardly better

/** Calls `show` with what `path` of `hub` has as JSON, and `fail` with the error where it has none. */
export class Poll {
  #hub
  #path
  #show
  #fail
  #wanted = false
  #asking = false
  #timer = null

  constructor(hub, path, show, fail) {
    this.#hub = hub
    this.#path = path
    this.#show = show
    this.#fail = fail
    document.addEventListener("visibilitychange", () => this.#next(0))
    hub.addEventListener("state", () => this.#next(0))
  }

  /** Whether somebody looks at it. */
  set wanted(wanted) {
    this.#wanted = wanted
    this.#next(0)
  }

  /** Asks at once: something has changed. */
  now() {
    this.#next(0)
  }

  #next(pause) {
    clearTimeout(this.#timer)
    if (!this.#wanted || document.hidden || this.#hub.state !== "open") return
    this.#timer = setTimeout(() => this.#ask(), pause)
  }

  async #ask() {
    if (this.#asking) return // its answer leads to the next
    this.#asking = true
    let pause = PAUSE
    try {
      const response = await this.#hub.fetch(this.#path)
      this.#show(await response.json())
    } catch (error) {
      this.#fail(error)
      pause = Math.max(PAUSE, error.retryAfter ?? REFUSED)
    }
    this.#asking = false
    this.#next(pause)
  }
}
