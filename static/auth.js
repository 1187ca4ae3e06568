// Who the client is: the token that it shows the hub, and the next one before that runs out.

import { HubError } from "./errors.js"

const EARLY = 30_000 // milliseconds before a token's end at which the next is asked for
const LEAST = 5_000
const LONGEST = 0x7fffffff // that a timer waits

/**
 * Has tokens from `source`: a token, or a function that returns one, or a promise of one, each time that another is
 * needed. It is called with the HubError that the last one was refused with, or with null.
 */
export class Auth {
  /** The token in use, or null. */
  token = null
  /** The promise of the one that is being asked for, or null. */
  asking = null
  #source
  #refused = {}
  #timer = null

  constructor(source) {
    this.#source = source
  }

  /** Whether there may be another token once this one has run out. */
  get renewable() {
    return typeof this.#source === "function"
  }

  /** What a request carries. */
  get headers() {
    return this.token === null ? {} : { Authorization: `Bearer ${this.token}` }
  }

  /** The token. Rejects with a HubError where there is none, or only the one that was refused. */
  get() {
    if (this.token !== null) return Promise.resolve(this.token)
    return (this.asking ??= this.#ask().finally(() => (this.asking = null)))
  }

  async #ask() {
    const { token: spoiled, error = null } = this.#refused
    const token = this.renewable ? await this.#source(error) : this.#source
    if (typeof token !== "string" || token === spoiled) {
      throw error ?? new HubError("unauthenticated", "This hub asks for a token, and there is none.")
    }
    return (this.token = token)
  }

  /** The token is of no use any more: it was refused with `error`, or is about to run out. */
  spoil(error) {
    this.#refused = error ? { token: this.token, error } : {}
    this.token = null
  }

  /** Calls `renew` before the token runs out at `expires`, a time as text, where there may be another. */
  expire(expires, renew) {
    this.stop()
    const left = Date.parse(expires) - Date.now()
    if (!this.renewable || Number.isNaN(left)) return
    const wait = Math.max(LEAST, left - EARLY)
    this.#timer = setTimeout(() => (wait > LONGEST ? this.expire(expires, renew) : renew()), Math.min(wait, LONGEST))
  }

  stop() {
    clearTimeout(this.#timer)
  }
}
