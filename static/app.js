// The dashboard: a client of the hub like any other. What comes from the hub is shown as text, never as HTML.

import { connect } from "/client.js"

const KEPT = 500 // rows of the feed
const STATS = "$hub"
const $ = id => document.getElementById(id)
const clip = (text, length = 400) => (text.length > length ? `${text.slice(0, length)}…` : text)
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 })
const number = new Intl.NumberFormat("en")

const hub = connect(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`)

// Connection

const showState = ({ state, delay, code }) => {
  const texts = {
    connecting: "connecting",
    open: "connected",
    waiting: `connection lost, next try in ${Math.max(1, Math.round((delay ?? 0) / 1000))} s`,
    closed: `closed for good${code ? ` (${code})` : ""}; reload the page`,
  }
  $("state").dataset.state = state
  $("state-text").textContent = texts[state]
  if (state !== "open") $("clients").textContent = "–"
}
hub.addEventListener("state", ({ detail }) => {
  showState(detail)
  showChips()
})
showState(hub)

// Channels: the address line remembers them, so that a view can be shared

const subscriptions = new Map() // name → subscription

const subscribe = name => {
  $("subscribe-error").textContent = ""
  if (subscriptions.has(name)) return
  const subscription = hub.subscribe(name, add, { onGap: gap => note(name, gap) })
  subscription.confirmed = false
  subscriptions.set(name, subscription)
  subscription.ready.then(
    () => {
      subscription.confirmed = true
      showChips()
    },
    error => {
      subscriptions.delete(name)
      $("subscribe-error").textContent = error.message
      remember()
    },
  )
  remember()
}

const unsubscribe = name => {
  subscriptions.get(name)?.close()
  subscriptions.delete(name)
  remember()
}

const remember = () => {
  const query = new URLSearchParams([...subscriptions.keys()].map(name => ["channel", name]))
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname)
  showChips()
  showEmpty()
}

const showChips = () => {
  const chips = [...subscriptions].map(([name, { confirmed }]) => {
    const chip = document.createElement("li")
    chip.classList.toggle("unconfirmed", !confirmed || hub.state !== "open")
    const label = document.createElement("span")
    label.textContent = name
    const leave = document.createElement("button")
    leave.type = "button"
    leave.textContent = "×"
    leave.setAttribute("aria-label", `Unsubscribe from ${name}`)
    leave.addEventListener("click", () => {
      unsubscribe(name)
      $("channel").focus()
    })
    chip.append(label, leave)
    return chip
  })
  $("chips").replaceChildren(...chips)
}

$("subscribe").addEventListener("submit", submit => {
  submit.preventDefault()
  subscribe($("channel").value)
  $("publish-channel").value ||= $("channel").value
  $("channel").value = ""
})

// The feed: what arrives is kept in `entries`, newest last, and drawn once a frame at most

let entries = []
let fresh = [] // arrived since the last drawing
let paused = false
let drawing = false
let received = 0
let serial = 0

const add = event => {
  received += 1
  keep({ serial: ++serial, at: event.at, channel: event.channel, text: JSON.stringify(event.payload), event })
}

const note = (name, { reason, dropped }) => {
  const count = dropped === null ? "events may be missing" : `${number.format(dropped)} events are missing`
  const texts = {
    listener: `${name}: ${count}, since the hub lost its connection to Postgres`,
    overflow: `${name}: ${count}, since this page read too slowly`,
    reconnect: `${name}: ${count}, since this page was not connected`,
  }
  keep({ serial: ++serial, at: new Date().toISOString(), channel: name, text: texts[reason] ?? `${name}: ${count}` })
}

const keep = entry => {
  fresh.push(entry)
  if (fresh.length > 2 * KEPT) fresh = fresh.slice(-KEPT)
  draw()
}

const draw = () => {
  if (drawing) return
  drawing = true
  requestAnimationFrame(() => {
    drawing = false
    const shown = paused ? [] : fresh
    if (!paused) {
      entries = [...entries, ...fresh].slice(-KEPT)
      fresh = []
    }
    show(shown.slice(-KEPT))
  })
}

const matches = entry => {
  const wanted = $("search").value.toLowerCase()
  return !wanted || entry.channel.toLowerCase().includes(wanted) || entry.text.toLowerCase().includes(wanted)
}

/** Put new entries on top, and let go of the oldest. */
const show = added => {
  const feed = $("feed")
  feed.prepend(...added.filter(matches).map(row).reverse())
  while (feed.childElementCount > KEPT) feed.lastElementChild.remove()
  tell()
}

const redraw = () => {
  $("feed").replaceChildren(...entries.filter(matches).map(row).reverse())
  tell()
}

const tell = () => {
  const waiting = paused && fresh.length
  $("received").textContent = number.format(received)
  $("pause").textContent = paused ? (waiting ? `Resume (${waiting >= KEPT ? `${KEPT}+` : waiting})` : "Resume") : "Pause"
  const visible = $("feed").childElementCount
  $("shown").textContent = $("search").value ? `${visible} of ${entries.length} match` : ""
  showEmpty()
}

const row = entry => {
  const item = $(entry.event ? "event-template" : "note-template").content.firstElementChild.cloneNode(true)
  const time = item.querySelector("time")
  time.dateTime = entry.at
  time.textContent = clock.format(new Date(entry.at))
  if (!entry.event) {
    item.querySelector(".text").textContent = entry.text
    return item
  }
  item.querySelector(".channel").textContent = entry.channel
  item.querySelector(".line").textContent = clip(entry.text)
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
  const searching = $("search").value !== "" && entries.length > 0
  $("empty-code").parentElement.hidden = searching
  $("empty-text").textContent = searching
    ? "Nothing in the feed matches."
    : name === undefined
      ? "Subscribe to a channel, then notify it from psql:"
      : `Waiting for events. Send one from psql:`
  const channel = name ?? "orders"
  const plain = /^[a-z_][a-z0-9_]*$/.test(channel)
  const identifier = plain ? channel : `"${channel.replaceAll('"', '""')}"`
  $("empty-code").textContent = `NOTIFY ${identifier}, '{"id": 1}';`
}

const pause = () => {
  paused = !paused
  $("pause").setAttribute("aria-pressed", String(paused))
  draw()
}
$("pause").addEventListener("click", pause)
$("clear").addEventListener("click", () => {
  entries = []
  fresh = []
  redraw()
})
$("search").addEventListener("input", redraw)

document.addEventListener("keydown", press => {
  if (press.target.matches("input, textarea") || press.ctrlKey || press.metaKey || press.altKey) return
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
    await hub.publish($("publish-channel").value, payloadOf($("payload").value), { durable: false })
    say(`Published at ${new Date().toLocaleTimeString("en-GB")}`, false)
  } catch (error) {
    say(error.message, true)
  }
})

// Numbers

const rates = new Array(60).fill(0)
let counted = 0

setInterval(() => {
  rates.push(received - counted)
  rates.shift()
  counted = received
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

hub.subscribe(STATS, ({ payload }) => ($("clients").textContent = number.format(payload.clients)))

// Light and dark

const theme = name => {
  if (name) document.documentElement.dataset.theme = name
}
theme(localStorage.getItem("theme"))
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")
  const other = now === "dark" ? "light" : "dark"
  localStorage.setItem("theme", other)
  theme(other)
})

for (const name of new URLSearchParams(location.search).getAll("channel")) if (name) subscribe(name)
$("publish-channel").value = subscriptions.keys().next().value ?? ""
showEmpty()
