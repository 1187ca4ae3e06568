// What the feed is fed by: the channels and patterns that this page is subscribed to, each with a chip.

import { channelOf } from "/example.js"
import { plural } from "/format.js"

const LOSSES = {
  listener: "since the hub lost its connection to Postgres",
  overflow: "since this page read too slowly",
  reconnect: "since this page was not connected",
}
const GAPS = {
  expired: "durable events are missing: the log keeps none so old",
  reset: "durable events may be missing: the log is another one",
  failover: "durable events may be missing, or come again: Postgres lost some of its log",
}
const $ = id => document.getElementById(id)

/** Subscribes, within `fence`, and lets `feed` have what comes; calls `onChange` whenever the names are others. */
export class Subscriptions {
  #hub
  #feed
  #onChange
  #fence
  #all = new Map() // name → {subscription, chip, confirmed}

  constructor(hub, feed, fence, onChange) {
    this.#hub = hub
    this.#feed = feed
    this.#fence = fence
    this.#onChange = onChange
    hub.addEventListener("state", () => this.#showConfirmed())
    hub.addEventListener("resumed", ({ detail }) => this.#resumed(detail))
    $("subscribe").addEventListener("submit", submit => {
      submit.preventDefault()
      this.add($("channel").value)
      $("publish-channel").value ||= channelOf($("channel").value)
      $("channel").value = ""
    })
  }

  get names() {
    return [...this.#all.keys()]
  }

  /** Subscribes to `name`, with its newest `last` events. */
  add(name, last) {
    $("subscribe-error").textContent = ""
    if (this.#all.has(name)) return
    const onGap = gap => this.#feed.say(name, `${name}: ${lossOf(gap)}`)
    const subscription = this.#hub.subscribe(name, event => this.#feed.add(event), { last, onGap, ...this.#fence })
    const entry = { subscription, chip: this.#chipOf(name), confirmed: false }
    this.#all.set(name, entry)
    $("chips").append(entry.chip)
    subscription.ready.then(
      () => {
        entry.confirmed = true
        this.#showConfirmed()
      },
      error => {
        if (this.#all.get(name) !== entry) return
        $("subscribe-error").textContent = error.message
        this.#forget(name)
      },
    )
    this.#changed()
  }

  #remove(name) {
    this.#all.get(name).subscription.close()
    this.#forget(name)
  }

  #forget(name) {
    this.#all.get(name).chip.remove()
    this.#all.delete(name)
    this.#changed()
  }

  #changed() {
    this.#showConfirmed()
    this.#feed.offer(this.names)
    this.#onChange()
  }

  #chipOf(name) {
    const chip = $("chip-template").content.firstElementChild.cloneNode(true)
    chip.querySelector("span").textContent = name
    const leave = chip.querySelector("button")
    leave.setAttribute("aria-label", `Unsubscribe from ${name}`)
    leave.addEventListener("click", () => {
      this.#remove(name)
      $("channel").focus()
    })
    return chip
  }

  #showConfirmed() {
    for (const { chip, confirmed } of this.#all.values()) {
      chip.classList.toggle("unconfirmed", !confirmed || this.#hub.state !== "open")
    }
  }

  #resumed({ channels, replayed, recovered }) {
    if (!channels.some(name => this.#all.has(name))) return
    const count = replayed ? `${plural(replayed, "event")} replayed` : "no durable event meanwhile"
    this.#feed.say("", `resumed: ${count}, ${recovered ? "nothing lost" : "but not all that there were"}`, recovered)
  }
}

const lossOf = ({ reason, dropped }) => {
  const notifies = dropped === null ? "NOTIFYs may be missing" : `${plural(dropped, "NOTIFY")} missing`
  return reason in LOSSES ? `${notifies}, ${LOSSES[reason]}` : (GAPS[reason] ?? "events may be missing")
}
