// The numbers that matter most, one a tile.

import { bytes, milliseconds, number, plural, rate, short } from "/format.js"

const $ = id => document.getElementById(id)
const known = (value, text) => (value === undefined || value === null ? "" : text(value))

/** [name, the number, what stands below it, whether it is a worry] of a sample. */
const TILES = [
  [
    "Clients",
    ({ clients }) => short(clients),
    ({ subscriptions, groups }) =>
      known(subscriptions, count => plural(count, "subscription")) + known(groups, count => ` in ${plural(count, "group")}`),
  ],
  ["Behind", ({ behind }) => short(behind), () => "clients that read too slowly", ({ behind }) => behind > 0],
  ["Events in", each => perSecond(each.events_in_rate), ({ events_in }) => known(events_in, total)],
  ["Deliveries", each => perSecond(each.deliveries_rate), each => perSecond(each.bytes_out_rate, bytes)],
  ["Delivery, p50", ({ p50_ms }) => milliseconds(p50_ms), () => "publish to socket"],
  ["Delivery, p99", ({ p99_ms }) => milliseconds(p99_ms), () => "over the last 10 s", ({ p99_ms }) => p99_ms >= 1_000],
  [
    "Tail lag",
    ({ lag_ms }) => milliseconds(lag_ms),
    ({ asleep }) => known(asleep, sleeps => (sleeps ? "asleep until something comes" : "awake")),
    ({ lag_ms }) => lag_ms >= 1_000,
  ],
  [
    "Pool",
    ({ pool: { used, max } }) => `${short(used)} of ${short(max)}`,
    ({ pool: { size, waiting } }) => known(size, count => `${number.format(count)} open, ${short(waiting)} waiting`),
    ({ pool: { waiting } }) => waiting > 0,
  ],
  [
    "Event loop lag",
    each => milliseconds(each.loop_lag_ms),
    ({ tasks }) => known(tasks, count => plural(count, "task")),
    each => each.loop_lag_ms >= 100,
  ],
  [
    "Memory",
    ({ memory_mb }) => bytes(memory_mb * 1e6),
    ({ version, draining }) => (draining ? "draining" : known(version, name => `pghub ${name}`)),
    ({ draining }) => draining,
  ],
]

const perSecond = (value, write = rate) => (Number.isFinite(value) ? `${write(value)}/s` : "–")
const total = count => `${short(count)} since the start`

/** Draws a sample of the hub's reports. */
export class Tiles {
  #tiles = TILES.map(([name]) => tileOf(name))

  constructor() {
    $("tiles").replaceChildren(...this.#tiles)
    this.clear()
  }

  /** Nothing is known. */
  clear() {
    this.draw({ pool: {} })
  }

  draw(sample) {
    TILES.forEach(([, value, detail, worry], at) => {
      const tile = this.#tiles[at]
      const [, main, below] = tile.children
      main.textContent = value(sample)
      below.textContent = detail(sample)
      tile.classList.toggle("worry", Boolean(worry?.(sample)))
    })
  }
}

const tileOf = name => {
  const tile = $("tile-template").content.firstElementChild.cloneNode(true)
  tile.firstElementChild.textContent = name
  return tile
}
