// The dashboard: a client of the hub like any other. What comes from the hub is shown as text, never as HTML.

import { connect, matcher } from "/client.js"
import { askAgain, token } from "/gate.js"
import { stored } from "/stored.js"
import { Views } from "/views.js"

const KEPT = 1_000 // entries of the feed, those that wait while it is paused counted apart
const PAGE = 100 // rows that are drawn at first, and more at a time when the reader comes near their end
const LAST = 20 // events that a channel of the address line begins with
const STATS = "$hub"
const $ = id => document.getElementById(id)
const clone = id => $(id).content.firstElementChild.cloneNode(true)
const clip = (text, length = 400) => (text.length > length ? `${text.slice(0, length)}…` : text)
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 })
const number = new Intl.NumberFormat("en")
const plural = (count, what) => `${number.format(count)} ${what}${count === 1 ? "" : "s"}`

const address = new URLSearchParams(location.search)
const hub = connect(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, { token })

// Connection

let postgres = "connected" // as the hub's own report has it

const showState = ({ state, delay, code }) => {
  const texts = {
    connecting: "connecting",
    open: postgres === "connected" ? "connected" : "connected, but the hub has lost Postgres",
    waiting: `connection lost, next try in ${Math.max(1, Math.round((delay ?? 0) / 1000))} s`,
    closed: `closed for good${code ? ` (${code})` : ""}; reload the page`,
  }
  $("state").dataset.state = state === "open" && postgres !== "connected" ? "waiting" : state
  $("state-text").textContent = texts[state]
  if (state !== "open") $("clients").textContent = "–"
}

hub.addEventListener("state", ({ detail }) => {
  postgres = "connected"
  showState(detail)
  showConfirmed()
})
showState(hub)

const stats = hub.subscribe(STATS, ({ payload }) => {
  $("clients").textContent = number.format(payload.clients)
  $("clients-label").textContent = payload.clients === 1 ? "client" : "clients"
  if (payload.listener === postgres) return
  postgres = payload.listener
  showState(hub)
})
stats.ready.catch(({ code }) => code === "forbidden" && askAgain("The dashboard needs a token that grants `admin`."))

// Channels: the address line remembers them, so that a view can be shared

const views = new Views(hub, address.get("table"), () => remember())
const subscriptions = new Map() // name → {subscription, chip, confirmed}
const isPattern = name => name.includes("*")
const channelOf = name => name?.replace(/[*]+/g, "new") // one to publish to that a subscription of this name hears
const asked = address.get("last")

const subscribe = (name, last) => {
  $("subscribe-error").textContent = ""
  if (subscriptions.has(name)) return
  const subscription = hub.subscribe(name, add, { last, onGap: gap => note(name, gap) })
  const entry = { subscription, chip: chipOf(name), confirmed: false }
  subscriptions.set(name, entry)
  $("chips").append(entry.chip)
  subscription.ready.then(
    () => {
      entry.confirmed = true
      showConfirmed()
    },
    error => {
      if (subscriptions.get(name) !== entry) return
      $("subscribe-error").textContent = error.message
      forget(name)
    },
  )
  remember()
}

const forget = name => {
  subscriptions.get(name).chip.remove()
  subscriptions.delete(name)
  remember()
}

const unsubscribe = name => {
  subscriptions.get(name).subscription.close()
  forget(name)
}

const chipOf = name => {
  const chip = clone("chip-template")
  chip.querySelector("span").textContent = name
  const leave = chip.querySelector("button")
  leave.setAttribute("aria-label", `Unsubscribe from ${name}`)
  leave.addEventListener("click", () => {
    unsubscribe(name)
    $("channel").focus()
  })
  return chip
}

const showConfirmed = () => {
  for (const { chip, confirmed } of subscriptions.values()) {
    chip.classList.toggle("unconfirmed", !confirmed || hub.state !== "open")
  }
}

const remember = () => {
  const names = [...subscriptions.keys()]
  const query = new URLSearchParams(names.map(name => ["channel", name]))
  if (asked) query.set("last", asked)
  if (views.opened) query.set("table", views.opened)
  history.replaceState(null, "", names.length || views.opened ? `?${query}` : location.pathname)
  showConfirmed()
  offer(names)
  showEmpty()
}

/** Offer `names` to filter by; one that is gone filters no longer. */
const offer = names => {
  const only = $("only")
  const before = only.value
  only.replaceChildren(new Option("All channels", ""), ...names.map(name => new Option(name, name)))
  only.value = names.length > 1 && names.includes(before) ? before : ""
  only.hidden = names.length < 2
  if (only.value !== before) redraw()
}

$("subscribe").addEventListener("submit", submit => {
  submit.preventDefault()
  subscribe($("channel").value)
  $("publish-channel").value ||= channelOf($("channel").value)
  $("channel").value = ""
})

// The feed: what arrives is kept in `entries`, newest last, and drawn once a frame at most

let entries = []
let fresh = [] // arrived since the last drawing
let skipped = 0 // left out of `fresh` since there were too many
let gone = 0 // no longer in the feed since it was cleared
let page = PAGE // rows that are drawn at most
let paused = false
let drawing = false
let received = 0

/** An event that several subscriptions mean comes to each of them; the feed has what is durable once. */
const seen = new Set()

const add = event => {
  const same = `${event.id} ${event.at}` // an id alone may be given out again, by another log or after a failover
  if (event.id !== null) {
    if (seen.has(same)) return
    seen.add(same)
    if (seen.size > 4 * KEPT) seen.delete(seen.values().next().value)
  }
  received += 1
  keep({ at: event.at, channel: event.channel, event })
}

const note = (name, { reason, dropped }) => {
  const notifies = dropped === null ? "NOTIFYs may be missing" : `${plural(dropped, "NOTIFY")} missing`
  const texts = {
    listener: `${notifies}, since the hub lost its connection to Postgres`,
    overflow: `${notifies}, since this page read too slowly`,
    reconnect: `${notifies}, since this page was not connected`,
    expired: "durable events are missing: the log keeps none so old",
    reset: "durable events may be missing: the log is another one",
    failover: "durable events may be missing, or come again: Postgres lost some of its log",
  }
  tellAll(name, `${name}: ${texts[reason] ?? "events may be missing"}`)
}

const tellAll = (channel, text, good = false) => keep({ at: new Date().toISOString(), channel, text, good })

hub.addEventListener("resumed", ({ detail: { channels, replayed, recovered } }) => {
  if (!channels.some(name => subscriptions.has(name))) return
  const count = replayed ? `${plural(replayed, "event")} replayed` : "no durable event meanwhile"
  tellAll("", `resumed: ${count}, ${recovered ? "nothing lost" : "but not all that there were"}`, recovered)
})

const keep = entry => {
  fresh.push(entry)
  if (fresh.length >= 2 * KEPT) skipped += fresh.splice(0, fresh.length - KEPT).length
  draw()
}

const draw = () => {
  if (drawing) return
  drawing = true
  requestAnimationFrame(() => {
    drawing = false
    if (!paused) show(takeIn())
    tell()
  })
}

/** Move what is fresh into the feed; returns it. */
const takeIn = () => {
  const added = fresh
  const all = entries.concat(added)
  entries = all.slice(-KEPT)
  gone += skipped + all.length - entries.length
  fresh = []
  skipped = 0
  return added
}

const textOf = entry => (entry.text ??= JSON.stringify(entry.event.payload))

/** A test for entries, by what the search and the filter say now. */
const filter = () => {
  const wanted = $("search").value.toLowerCase()
  const only = $("only").value
  if (!wanted && !only) return () => true
  const meant = matcher(only)
  return entry =>
    (!only || !entry.channel || entry.channel === only || meant(entry.channel)) &&
    (!wanted || entry.channel.toLowerCase().includes(wanted) || textOf(entry).toLowerCase().includes(wanted))
}

/** Put new entries on top, and let go of the oldest. */
const show = added => {
  const feed = $("feed")
  feed.prepend(...added.filter(filter()).slice(-page).map(row).reverse())
  while (feed.childElementCount > page) feed.lastElementChild.remove()
}

const redraw = () => {
  page = PAGE
  $("feed").replaceChildren()
  $("scroller").scrollTop = 0
  show(entries)
  tell()
}

/** Draw more of the older entries once the end of the drawn ones comes near. */
const more = () => {
  const found = entries.filter(filter())
  const drawn = $("feed").childElementCount
  if (drawn >= found.length) return
  page = Math.min(drawn + PAGE, KEPT)
  $("feed").append(...found.slice(-page, -drawn || undefined).map(row).reverse())
}

/** At the top again: a short feed is enough. */
const fewer = () => {
  if ($("scroller").scrollTop === 0) page = PAGE
}

$("scroller").addEventListener("scroll", fewer, { passive: true })
new IntersectionObserver(seen => seen.some(each => each.isIntersecting) && more(), {
  root: $("scroller"),
  rootMargin: "600px",
}).observe($("end"))

const tell = () => {
  const waiting = paused ? fresh.length + skipped : 0
  $("received").textContent = number.format(received)
  $("pause").textContent = paused ? (waiting ? `Resume (${number.format(waiting)})` : "Resume") : "Pause"
  $("shown").textContent = summary()
  showEmpty()
}

const summary = () => {
  const filtering = $("search").value || $("only").value
  if (filtering) return `${number.format(entries.filter(filter()).length)} of ${number.format(entries.length)} match`
  if (gone) return `the newest ${number.format(entries.length)} of ${number.format(entries.length + gone)}`
  return entries.length ? plural(entries.length, "event") : ""
}

const row = entry => {
  const item = clone(entry.event ? "event-template" : "note-template")
  const time = item.querySelector("time")
  time.dateTime = entry.at
  time.textContent = clock.format(new Date(entry.at))
  if (!entry.event) {
    item.querySelector(".text").textContent = entry.text
    item.classList.toggle("good", entry.good)
    return item
  }
  const kind = item.querySelector(".kind")
  kind.textContent = entry.event.id === null ? "NOTIFY" : `#${entry.event.id}`
  kind.title = entry.event.id === null ? "Came by NOTIFY, and is kept nowhere" : "Durable: its id in the log"
  kind.classList.toggle("durable", entry.event.id !== null)
  const channel = item.querySelector(".channel")
  channel.textContent = channel.title = entry.channel
  item.querySelector(".line").textContent = clip(textOf(entry))
  item.querySelector("details").addEventListener(
    "toggle",
    () => (item.querySelector(".json").textContent = JSON.stringify(entry.event, null, 2)),
    { once: true },
  )
  return item
}

const showEmpty = () => {
  const empty = $("feed").childElementCount === 0
  $("empty").hidden = !empty
  if (!empty) return
  const [name] = subscriptions.keys()
  const searching = ($("search").value || $("only").value) && entries.length > 0
  $("empty-code").parentElement.hidden = searching
  $("empty-text").textContent = searching
    ? "Nothing in the feed matches."
    : name === undefined
      ? "Subscribe to a channel, then publish to it from psql:"
      : "Waiting for events. Send one from psql:"
  $("empty-code").textContent = exampleFor(name ?? "orders")
}

const exampleFor = name => {
  const channel = channelOf(name)
  const publish = `SELECT hub.publish('${channel.replaceAll("'", "''")}', '{"id": 1}');`
  if (isPattern(name)) return publish // which means durable events only
  const plain = /^[a-z_][a-z0-9_]*$/.test(channel)
  const identifier = plain ? channel : `"${channel.replaceAll('"', '""')}"`
  return `${publish}\n-- or, for those who listen now only:\nNOTIFY ${identifier}, '{"id": 1}';`
}

const pause = () => {
  paused = !paused
  $("pause").setAttribute("aria-pressed", String(paused))
  views.pause(paused)
  draw()
}
$("pause").addEventListener("click", pause)
$("clear").addEventListener("click", () => {
  entries = []
  fresh = []
  gone = skipped = 0
  redraw()
})
$("search").addEventListener("input", () => {
  redraw()
  views.search($("search").value)
})
$("only").addEventListener("change", redraw)

document.addEventListener("keydown", press => {
  if (press.target.matches("input, textarea, select") || press.ctrlKey || press.metaKey || press.altKey) return
  if (press.key === "/") {
    press.preventDefault()
    $("search").focus()
  } else if (press.key === "p") pause()
})

// Publishing

const payloadOf = text => {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (/^\s*[[{"]/.test(text)) throw new Error(`This is no JSON: ${error.message}`)
    return text // plain text is a payload too
  }
}

$("publish").addEventListener("submit", async submit => {
  submit.preventDefault()
  const result = $("publish-result")
  const say = (text, bad) => {
    result.textContent = text
    result.classList.toggle("bad", bad)
  }
  try {
    const durable = !$("notify").checked
    const id = await hub.publish($("publish-channel").value, payloadOf($("payload").value), { durable })
    say(`Published ${durable ? `as #${id}` : "by NOTIFY"} at ${new Date().toLocaleTimeString("en-GB")}`, false)
  } catch (error) {
    say(error.message, true)
  }
})

// Numbers

const rates = new Array(60).fill(0)
let counted = 0
let countedAt = performance.now()

setInterval(() => {
  // A page in the background is called less often than once a second.
  const now = performance.now()
  rates.push(Math.round(((received - counted) * 1000) / (now - countedAt)))
  rates.shift()
  counted = received
  countedAt = now
  $("rate").textContent = number.format(rates.at(-1))
  sparkline()
}, 1000)

const sparkline = () => {
  const canvas = $("spark")
  const scale = devicePixelRatio || 1
  const [width, height] = [120, 28]
  canvas.width = width * scale
  canvas.height = height * scale
  canvas.style.width = `${width}px`
  canvas.style.height = `${height}px`
  const pen = canvas.getContext("2d")
  pen.scale(scale, scale)
  pen.fillStyle = getComputedStyle(canvas).color
  const most = Math.max(1, ...rates)
  rates.forEach((rate, index) => {
    const size = Math.max(1, (rate / most) * (height - 2))
    pen.fillRect(index * 2, height - size, 1.4, size)
  })
}

// Light and dark

const theme = name => {
  if (name) document.documentElement.dataset.theme = name
}

theme(stored("localStorage", storage => storage.getItem("theme")))
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")
  const other = now === "dark" ? "light" : "dark"
  stored("localStorage", storage => storage.setItem("theme", other))
  theme(other)
  sparkline()
})

const last = asked ? Number(asked) || undefined : LAST
for (const name of address.getAll("channel")) if (name) subscribe(name, last)
$("publish-channel").value = channelOf(subscriptions.keys().next().value) ?? ""
showEmpty()
