// The history: what was published at some moment, page by page; to be replayed into the feed, or saved.

import { number, plural } from "/format.js"
import { Replay } from "/replay.js"
import { row } from "/row.js"
import { save } from "/save.js"

const PAGE = 100
const HOUR = 3_600_000
const GAPS = {
  expired: "Older events are no longer kept: this begins with the oldest that are.",
  reset: "The log is another one than that of the page before.",
  failover: "Postgres lost some of its log here: events may be missing, or come again.",
}
const $ = id => document.getElementById(id)

/** Searches the log of `hub`, and replays into `feed`; calls `onReplay` when it begins to. */
export class Past {
  #hub
  #replay
  #asked = null // the selection that is shown, as parameters
  #starts = [] // where this page and those before it begin: cursors, null for the first
  #next = null // the cursor behind this page
  #loading = null // the AbortController of the request under way
  #saving = null
  #events = []

  constructor(hub, feed, onReplay) {
    this.#hub = hub
    this.#replay = new Replay(feed, text => this.#tellReplay(text))
    $("past-from").value = local(new Date(Date.now() - HOUR))
    $("past-form").addEventListener("submit", submit => {
      submit.preventDefault()
      this.#search()
    })
    $("past-older").addEventListener("click", () => this.#turn(-1))
    $("past-newer").addEventListener("click", () => this.#turn(1))
    for (const format of ["csv", "ndjson"]) $(`past-${format}`).addEventListener("click", () => this.#save(format))
    $("past-replay").addEventListener("click", () => {
      if (this.#replay.running) return this.#replay.stop()
      onReplay()
      this.#replay.run(this.#pages(), Number($("past-speed").value))
    })
    this.#offer()
  }

  /** Searches, the first time that somebody looks. */
  open() {
    if (!this.#asked && this.#hub.state === "open") this.#search()
  }

  #search() {
    this.#asked = parameters()
    this.#starts = [null]
    return this.#load()
  }

  #turn(step) {
    if (step > 0) this.#starts.push(this.#next)
    else this.#starts.pop()
    return this.#load()
  }

  async #load() {
    this.#loading?.abort()
    const loading = (this.#loading = new AbortController())
    say("searching …")
    try {
      const page = await this.#page(this.#starts.at(-1), loading.signal)
      if (this.#loading === loading) this.#show(page)
    } catch (error) {
      if (this.#loading === loading) this.#fail(error)
    }
  }

  async #page(since, signal) {
    const asked = new URLSearchParams([...this.#asked, ["limit", PAGE]])
    if (since) asked.set("since", since)
    const response = await this.#hub.fetch(`events?${asked}`, { signal })
    return response.json()
  }

  #show({ events, cursor, gap }) {
    this.#events = events
    this.#next = events.length === PAGE ? cursor : null
    const first = (this.#starts.length - 1) * PAGE
    $("past-list").replaceChildren(...events.map(event => row({ at: event.at, channel: event.channel, event, utc: true })))
    $("past-scroller").scrollTop = 0
    $("past-gap").textContent = gap ? (GAPS[gap] ?? `Events may be missing: ${gap}.`) : ""
    $("past-empty").hidden = events.length > 0
    $("past-empty").textContent = first ? "That was all." : "Nothing was published then that this selects."
    say(events.length ? `${number.format(first + 1)} to ${number.format(first + events.length)}, ${span(events)}` : "")
    this.#offer()
  }

  #fail(error) {
    this.#events = []
    this.#next = null
    $("past-list").replaceChildren()
    $("past-empty").hidden = true
    say(error.message, true)
    this.#offer()
  }

  #offer() {
    $("past-older").disabled = this.#starts.length < 2
    $("past-newer").disabled = !this.#next
    $("past-replay").disabled = !this.#events.length && !this.#replay.running
    for (const format of ["csv", "ndjson"]) $(`past-${format}`).disabled = !this.#asked
  }

  // Replaying: from this page on, as far as the selection goes

  async *#pages() {
    let [events, cursor] = [this.#events, this.#next]
    for (;;) {
      yield events
      if (!cursor) return
      const page = await this.#page(cursor)
      events = page.events
      cursor = events.length ? page.cursor : null
    }
  }

  #tellReplay(text) {
    $("past-result").textContent = text
    $("past-replay").textContent = this.#replay.running ? "Stop" : "Replay"
    this.#offer()
  }

  // Saving: pressed again, it is given up

  async #save(format) {
    if (this.#saving) return this.#saving.abort()
    const saving = (this.#saving = new AbortController())
    const button = $(`past-${format}`)
    const text = button.textContent
    const tell = said => ($("past-result").textContent = said)
    button.textContent = "Stop"
    try {
      const size = await save(this.#hub, `events?${new URLSearchParams(this.#asked)}`, format, saving.signal, tell)
      tell(`saved ${size}`)
    } catch (error) {
      tell(saving.signal.aborted ? "not saved" : error.message)
    } finally {
      button.textContent = text
      this.#saving = null
    }
  }
}

/** What the form selects, as pairs. The moments in it are UTC, and have no zone of their own. */
const parameters = () => {
  const found = [...new Set($("past-channels").value.split("\n"))].filter(Boolean).map(name => ["channel", name])
  for (const [name, field] of [["from", "past-from"], ["to", "past-to"]]) if ($(field).value) found.push([name, `${$(field).value}Z`])
  if ($("past-tag").value) found.push(["tag", $("past-tag").value])
  return found
}

/** A moment as a field of the page has it, to the minute, in UTC. */
const local = moment => moment.toISOString().slice(0, 16)

const span = events => {
  const [from, to] = [events[0].at, events.at(-1).at]
  const length = Math.round((Date.parse(to) - Date.parse(from)) / 1_000)
  return `${plural(length, "second")} from ${from.slice(0, 19).replace("T", " ")} UTC`
}

const say = (text, bad = false) => {
  $("past-state").textContent = text
  $("past-state").classList.toggle("bad", bad)
}
