// The feed: what arrives is kept, the newest last, and drawn once a frame at most.

import { matcher } from "/client.js"
import { exampleFor } from "/example.js"
import { number, plural } from "/format.js"
import { row, textOf } from "/row.js"

const KEPT = 1_000 // entries of the feed, those that wait while it is paused counted apart
const PAGE = 100 // rows that are drawn at first, and more at a time when the reader comes near their end
const $ = id => document.getElementById(id)

/** Shows events in the panel of the page that is made for it, and their places on the Atlas. */
export class Feed {
  /** Events that have arrived. */
  received = 0
  #entries = []
  #fresh = [] // arrived since the last drawing
  #skipped = 0 // left out of `fresh` since there were too many
  #gone = 0 // no longer in the feed since it was cleared
  #page = PAGE // rows that are drawn at most
  #paused = false
  #drawing = false
  #names = [] // of what is subscribed to
  #atlas
  #seen = new Set() // an event that several subscriptions mean comes to each of them; the feed has what is durable once

  constructor(atlas) {
    this.#atlas = atlas
    $("clear").addEventListener("click", () => this.#clear())
    $("search").addEventListener("input", () => this.#redraw())
    $("only").addEventListener("change", () => this.#redraw())
    const scroller = $("scroller")
    scroller.addEventListener("scroll", () => this.#fewer(), { passive: true })
    new IntersectionObserver(seen => seen.some(each => each.isIntersecting) && this.#more(), {
      root: scroller,
      rootMargin: "600px",
    }).observe($("end"))
    this.#showEmpty()
  }

  add(event) {
    const same = `${event.id} ${event.at}` // an id alone may be given out again, by another log or after a failover
    if (event.id !== null) {
      if (this.#seen.has(same)) return
      this.#seen.add(same)
      if (this.#seen.size > 4 * KEPT) this.#seen.delete(this.#seen.values().next().value)
    }
    this.received += 1
    this.#keep({ at: event.at, channel: event.channel, event })
  }

  /** Shows an event of the past, which may have been shown before. */
  again(event) {
    this.#keep({ at: event.at, channel: event.channel, event, again: true })
  }

  /** Says something about `channel`, or, where that is "", about all. */
  say(channel, text, good = false) {
    this.#keep({ at: new Date().toISOString(), channel, text, good })
  }

  /** Holds what is shown, or goes on with what has come meanwhile. */
  pause(paused) {
    this.#paused = paused
    $("pause").setAttribute("aria-pressed", String(paused))
    this.#draw()
  }

  /** Offers `names`, which are subscribed to, to filter by; one that is gone filters no longer. */
  offer(names) {
    this.#names = names
    const only = $("only")
    const before = only.value
    only.replaceChildren(new Option("All channels", ""), ...names.map(name => new Option(name, name)))
    only.value = names.length > 1 && names.includes(before) ? before : ""
    only.hidden = names.length < 2
    if (only.value !== before) this.#redraw()
    this.#showEmpty()
  }

  #clear() {
    this.#entries = []
    this.#fresh = []
    this.#gone = this.#skipped = 0
    this.#atlas.clear()
    this.#redraw()
  }

  #keep(entry) {
    this.#fresh.push(entry)
    if (this.#fresh.length >= 2 * KEPT) this.#skipped += this.#fresh.splice(0, this.#fresh.length - KEPT).length
    this.#draw()
  }

  #draw() {
    if (this.#drawing) return
    this.#drawing = true
    requestAnimationFrame(() => {
      this.#drawing = false
      if (!this.#paused) {
        const added = this.#takeIn()
        this.#show(added)
        this.#atlas.add(added.map(({ event }) => event?.place).filter(Boolean))
      }
      this.#tell()
    })
  }

  /** Moves what is fresh into the feed; returns it. */
  #takeIn() {
    const added = this.#fresh
    const all = this.#entries.concat(added)
    this.#entries = all.slice(-KEPT)
    this.#gone += this.#skipped + all.length - this.#entries.length
    this.#fresh = []
    this.#skipped = 0
    return added
  }

  /** A test for entries, by what the search and the filter say now. */
  #filter() {
    const wanted = $("search").value.toLowerCase()
    const only = $("only").value
    if (!wanted && !only) return () => true
    const meant = matcher(only)
    return entry =>
      (!only || !entry.channel || entry.channel === only || meant(entry.channel)) &&
      (!wanted || entry.channel.toLowerCase().includes(wanted) || textOf(entry).toLowerCase().includes(wanted))
  }

  /** Puts new entries on top, and lets go of the oldest. */
  #show(added) {
    const feed = $("feed")
    feed.prepend(...added.filter(this.#filter()).slice(-this.#page).map(row).reverse())
    while (feed.childElementCount > this.#page) feed.lastElementChild.remove()
  }

  #redraw() {
    this.#page = PAGE
    $("feed").replaceChildren()
    $("scroller").scrollTop = 0
    this.#show(this.#entries)
    this.#tell()
  }

  /** Draws more of the older entries once the end of the drawn ones comes near. */
  #more() {
    const found = this.#entries.filter(this.#filter())
    const drawn = $("feed").childElementCount
    if (drawn >= found.length) return
    this.#page = Math.min(drawn + PAGE, KEPT)
    $("feed").append(...found.slice(-this.#page, -drawn || undefined).map(row).reverse())
  }

  /** At the top again: a short feed is enough. */
  #fewer() {
    if ($("scroller").scrollTop === 0) this.#page = PAGE
  }

  #tell() {
    const waiting = this.#paused ? this.#fresh.length + this.#skipped : 0
    $("received").textContent = number.format(this.received)
    $("pause").textContent = this.#paused ? (waiting ? `Resume (${number.format(waiting)})` : "Resume") : "Pause"
    $("shown").textContent = this.#summary()
    this.#showEmpty()
  }

  #summary() {
    const kept = this.#entries.length
    const filtering = $("search").value || $("only").value
    if (filtering) return `${number.format(this.#entries.filter(this.#filter()).length)} of ${number.format(kept)} match`
    if (this.#gone) return `the newest ${number.format(kept)} of ${number.format(kept + this.#gone)}`
    return kept ? plural(kept, "event") : ""
  }

  #showEmpty() {
    const empty = $("feed").childElementCount === 0
    $("empty").hidden = !empty
    if (!empty) return
    const [name] = this.#names
    const searching = ($("search").value || $("only").value) && this.#entries.length > 0
    $("empty-code").parentElement.hidden = searching
    $("empty-text").textContent = searching
      ? "Nothing in the feed matches."
      : name === undefined
        ? "Subscribe to a channel, then publish to it from psql:"
        : "Waiting for events. Send one from psql:"
    $("empty-code").textContent = exampleFor(name ?? "orders")
  }
}
