// The channels on which something goes on.

import { age, number, rate, short } from "/format.js"
import { Listing } from "/listing.js"
import { Poll } from "/poll.js"

const MOST = 50 // lines
const $ = id => document.getElementById(id)

/** Shows the busiest channels while `wanted`. */
export class Traffic {
  #poll
  #listing = new Listing(
    $("traffic-body"),
    [
      ({ channel }) => [channel, "name", channel],
      each => [`${rate(each.rate)}/s`, "number"],
      ({ subscribers }) => [short(subscribers), "number"],
      ({ events }) => [short(events), "number", Number.isFinite(events) ? number.format(events) : ""],
      ({ last }) => [last ? `${age(last.at)} ago` : "–", "number", last?.at],
    ],
    ({ channel }) => channel,
  )

  constructor(hub) {
    this.#poll = new Poll(hub, "channels", ({ channels }) => this.#show(channels), ({ message }) => say(message, true))
  }

  set wanted(wanted) {
    this.#poll.wanted = wanted
  }

  #show(channels) {
    this.#listing.draw(channels.slice(0, MOST))
    const all = number.format(channels.length)
    say(channels.length > MOST ? `the busiest ${MOST} of ${all}` : channels.length ? "" : "nothing goes on")
  }
}

const say = (text, bad = false) => {
  $("traffic-state").textContent = text
  $("traffic-state").classList.toggle("bad", bad)
}
