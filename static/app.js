// The dashboard: a client of the hub like any other. What comes from the hub is shown as text, never as HTML.

import { connect } from "/client.js"
import { channelOf } from "/example.js"
import { Feed } from "/feed.js"
import { fenceOf, shapesOf } from "/fence.js"
import { askAgain, token } from "/gate.js"
import { Atlas } from "/map.js"
import { Operations } from "/operations.js"
import { Past } from "/past.js"
import * as publish from "/publish.js"
import { Rate, Status } from "/status.js"
import { Subscriptions } from "/subscriptions.js"
import * as theme from "/theme.js"
import { Views } from "/views.js"

const LAST = 20 // events that a channel of the address line begins with
const REPORTS = "$hub"
const $ = id => document.getElementById(id)

const address = new URLSearchParams(location.search)
const asked = address.get("last")
const hub = connect(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, { token })
const fence = fenceOf(address)
const atlas = new Atlas($("map"), shapesOf(fence))
const feed = new Feed(atlas)
const status = new Status(hub)
const operations = new Operations(hub)
const past = new Past(hub, feed, () => views.show("feed"))
const subscriptions = new Subscriptions(hub, feed, fence, () => remember())
const views = new Views(hub, { operations, past }, address, () => remember())
const rate = new Rate(() => feed.received)
theme.begin(() => {
  rate.draw()
  operations.draw()
  atlas.draw()
})

const reports = hub.subscribe(REPORTS, ({ payload }) => {
  if (payload.kind === undefined) status.report(payload)
  operations.take(payload)
})
reports.ready.catch(({ code }) => code === "forbidden" && askAgain("The dashboard needs a token that grants `admin`."))

/** The address line remembers what is shown, so that it can be shared. */
const remember = () => {
  const query = new URLSearchParams(subscriptions.names.map(name => ["channel", name]))
  if (asked && query.size) query.set("last", asked)
  for (const name of Object.keys(fence)) query.set(name, address.get(name))
  for (const [name, value] of views.address) query.set(name, value)
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname)
}

let paused = false
const pause = () => {
  paused = !paused
  feed.pause(paused)
  views.pause(paused)
}
$("pause").addEventListener("click", pause)
$("search").addEventListener("input", () => views.search($("search").value))

document.addEventListener("keydown", press => {
  if ($("tools").classList.contains("away")) return
  if (press.target.matches("input, textarea, select") || press.ctrlKey || press.metaKey || press.altKey) return
  if (press.key === "/") {
    press.preventDefault()
    $("search").focus()
  } else if (press.key === "p") pause()
})

for (const name of address.getAll("channel")) if (name) subscriptions.add(name, asked ? Number(asked) || undefined : LAST)
publish.begin(hub, channelOf(subscriptions.names[0]))
