// Who is connected, how far each one is, and a way to disconnect one.

import { age, bytes, number, plural, short } from "/format.js"
import { Listing } from "/listing.js"
import { Poll } from "/poll.js"

const MOST = 200 // lines
const PLACES = { behind: 0, joining: 1 }
const $ = id => document.getElementById(id)

/** Shows the clients while `wanted`. */
export class Clients {
  #hub
  #poll
  #listing = new Listing(
    $("clients-body"),
    [
      ({ address, id }) => [address ?? "–", "name", `session ${id}`],
      ({ kind, subject }) => [subject ? `${kind}, ${subject}` : (kind ?? "–")],
      ({ channels }) => [namesOf(channels), "name", channels?.join("\n")],
      ({ since }) => [age(since), "number", since],
      ({ position }) => [position ?? "–", position === "behind" ? "worry" : ""],
      ({ buffer }) => [bytes(buffer), "number"],
      ({ lag }) => [short(lag ?? NaN), "number"],
      ({ deliveries }) => [short(deliveries), "number"],
    ],
    ({ id }) => id,
    (line, entry) => line.append(this.#actionOf(entry)),
  )

  constructor(hub) {
    this.#hub = hub
    const path = `sessions?limit=${MOST}`
    this.#poll = new Poll(hub, path, ({ sessions }) => this.#show(sessions), ({ message }) => say(message, true))
  }

  set wanted(wanted) {
    this.#poll.wanted = wanted
  }

  /** Those that are in trouble first; the others as they came, so that the lines stay where they are. */
  #show(sessions) {
    const rank = ({ position }) => PLACES[position] ?? 2
    const sorted = sessions.toSorted((a, b) => rank(a) - rank(b) || Date.parse(a.since) - Date.parse(b.since))
    this.#listing.draw(sorted)
    say(sessions.length >= MOST ? `the ${MOST} with the fullest buffers` : plural(sessions.length, "client"))
  }

  // Disconnecting: one is asked again where one is, as it cannot be taken back

  #actionOf(entry) {
    const cell = document.createElement("td")
    cell.className = "action"
    if (entry.id === this.#hub.welcome?.session) cell.textContent = "this page"
    else this.#offer(cell, entry)
    return cell
  }

  #offer(cell, entry) {
    const ask = buttonOf("Disconnect", `Disconnect ${entry.address}`)
    ask.addEventListener("click", () => this.#confirm(cell, entry))
    cell.replaceChildren(ask)
    return ask
  }

  #confirm(cell, entry) {
    const sure = buttonOf("Disconnect now", `Disconnect ${entry.address} now`)
    const keep = buttonOf("Keep", `Keep ${entry.address} connected`)
    const back = () => this.#offer(cell, entry).focus()
    sure.classList.add("danger")
    sure.addEventListener("click", () => this.#disconnect(cell, entry))
    keep.addEventListener("click", back)
    for (const each of [sure, keep]) each.addEventListener("keydown", ({ key }) => key === "Escape" && back())
    cell.replaceChildren(sure, keep)
    keep.focus() // a second Enter does no harm
  }

  async #disconnect(cell, entry) {
    cell.textContent = "leaving"
    $("clients-panel").focus()
    try {
      await this.#hub.fetch(`sessions/${encodeURIComponent(entry.id)}`, { method: "DELETE" })
    } catch (error) {
      $("clients-error").textContent = error.code === "not_found" ? "" : error.message // it has left by itself
      this.#offer(cell, entry)
    }
    this.#poll.now()
  }
}

const buttonOf = (text, label) => {
  const button = document.createElement("button")
  button.type = "button"
  button.textContent = text
  button.setAttribute("aria-label", label)
  return button
}

const namesOf = (channels = []) => {
  const more = channels.length - 3
  return channels.slice(0, 3).join(", ") + (more > 0 ? ` and ${number.format(more)} more` : "")
}

const say = (text, bad = false) => {
  $("clients-state").textContent = text
  $("clients-state").classList.toggle("bad", bad)
}
