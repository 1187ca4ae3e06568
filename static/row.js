// Entries of the feed and of the history, as they stand in the page. What comes from the hub is text, never HTML.

import { clip, clock, clockUtc } from "/format.js"

const clone = id => document.getElementById(id).content.firstElementChild.cloneNode(true)

/** What a search looks at, and what is shown in one line. */
export const textOf = entry => (entry.text ??= JSON.stringify(entry.event.payload))

/** A list's item for an entry: {at, channel, event, again, utc}, or, for what the page itself has to say, {at, text, good}. */
export const row = entry => (entry.event ? eventOf(entry) : noteOf(entry))

const eventOf = entry => {
  const item = clone("event-template")
  const { event, channel: name } = entry
  stamp(item, entry.at, entry.utc ? clockUtc : clock)
  const kind = item.querySelector(".kind")
  kind.textContent = event.id === null ? "NOTIFY" : `#${event.id}`
  kind.title = event.id === null ? "Came by NOTIFY, and is kept nowhere" : "Durable: its id in the log"
  kind.classList.toggle("durable", event.id !== null)
  item.classList.toggle("again", Boolean(entry.again))
  const channel = item.querySelector(".channel")
  channel.textContent = channel.title = name
  item.querySelector(".line").textContent = clip(textOf(entry))
  const details = item.querySelector("details")
  details.addEventListener("toggle", () => (item.querySelector(".json").textContent = JSON.stringify(event, null, 2)), {
    once: true,
  })
  return item
}

const noteOf = ({ at, text, good }) => {
  const item = clone("note-template")
  stamp(item, at, clock)
  item.querySelector(".text").textContent = text
  item.classList.toggle("good", Boolean(good))
  return item
}

const stamp = (item, at, format) => {
  const time = item.querySelector("time")
  time.dateTime = time.title = at
  time.textContent = format.format(new Date(at))
}
