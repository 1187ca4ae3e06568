// Where the feed's events are: their places on a plain canvas, longitude across and latitude up, without a map beneath.

import { plural } from "/format.js"
import { extentOf, measured, partsOf } from "/geojson.js"
import { penOf } from "/plot.js"

const KEPT = 1_000 // places,
const POINTS = 100_000 // and points of them together, so that a frame can be drawn in time
const FONT = "11px system-ui, sans-serif"
const MARGIN = 32 // CSS pixels around what is shown
const [ACROSS, UP] = [90, 45] // CSS pixels between two lines of the graticule, at the least,
const WIDEST = 90 // and degrees, at the most
const LEAST = 0.002 // degrees that are shown: a single point has no extent
const STEPS = [1, 2, 5, 10]

/** Draws the newest places, and `fences` (GeoJSON) as outlines; the canvas is hidden while there is neither. */
export class Atlas {
  #canvas
  #fences
  #places = [] // the newest last: {parts, points}
  #points = 0
  #drawing = false

  constructor(canvas, fences) {
    this.#canvas = canvas
    this.#fences = fences.flatMap(partsOf)
    new ResizeObserver(() => this.draw()).observe(canvas)
    this.draw()
  }

  /** Takes in GeoJSON geometries, the newest last; an empty one is nowhere. */
  add(geometries) {
    const fresh = geometries.slice(-KEPT).map(measured).filter(({ points }) => points)
    if (!fresh.length) return
    this.#places.push(...fresh)
    for (const { points } of fresh) this.#points += points
    let gone = 0
    while (this.#places.length - gone > KEPT || (this.#points > POINTS && this.#places.length - gone > 1)) {
      this.#points -= this.#places[gone++].points
    }
    this.#places.splice(0, gone)
    this.draw()
  }

  clear() {
    this.#places = []
    this.#points = 0
    this.draw()
  }

  /** Draws anew, with the next frame. */
  draw() {
    if (this.#drawing) return
    this.#drawing = true
    requestAnimationFrame(() => {
      this.#drawing = false
      this.#drawNow()
    })
  }

  #drawNow() {
    const parts = this.#places.flatMap(each => each.parts)
    const shown = [...parts, ...this.#fences]
    this.#canvas.hidden = !shown.length
    const { clientWidth: width, clientHeight: height } = this.#canvas
    if (!shown.length) return
    const extent = extentOf(shown)
    this.#canvas.setAttribute("aria-label", this.#label(parts.length ? extentOf(parts) : extent))
    if (!width) return // its panel is not shown
    const pen = penOf(this.#canvas, width, height)
    const colours = getComputedStyle(this.#canvas)
    const view = fit(extent, width, height)
    graticule(pen, view, colours)
    pen.strokeStyle = colours.getPropertyValue("--soft")
    pen.setLineDash([5, 4])
    for (const part of this.#fences) trace(pen, view, part)
    pen.setLineDash([])
    pen.strokeStyle = pen.fillStyle = colours.getPropertyValue("--accent")
    this.#places.forEach((place, index) => paint(pen, view, place, index === this.#places.length - 1))
  }

  #label([west, south, east, north]) {
    const across = `from ${degrees(west, 3, "W", "E")} to ${degrees(east, 3, "W", "E")}`
    const up = `from ${degrees(south, 3, "S", "N")} to ${degrees(north, 3, "S", "N")}`
    const fenced = this.#fences.length ? ", within a fence" : ""
    return `Map of ${plural(this.#places.length, "place")}${fenced}, ${across} and ${up}`
  }
}

/** An equirectangular view with the extent in its middle, true to scale at its middle latitude. */
const fit = ([west, south, east, north], width, height) => {
  const [longitude, latitude] = [(west + east) / 2, (south + north) / 2]
  const squeeze = Math.max(0.05, Math.cos((latitude * Math.PI) / 180))
  const across = (width - 2 * MARGIN) / (Math.max(LEAST, east - west) * squeeze)
  const scale = Math.min(across, (height - 2 * MARGIN) / Math.max(LEAST, north - south)) // CSS pixels in a degree up
  return {
    width,
    height,
    perX: scale * squeeze,
    perY: scale,
    x: each => width / 2 + (each - longitude) * scale * squeeze,
    y: each => height / 2 - (each - latitude) * scale,
    longitude: x => longitude + (x - width / 2) / (scale * squeeze),
    latitude: y => latitude - (y - height / 2) / scale,
  }
}

const graticule = (pen, view, colours) => {
  const { width, height } = view
  pen.font = FONT
  pen.strokeStyle = colours.getPropertyValue("--line")
  pen.fillStyle = colours.getPropertyValue("--soft")
  for (const [at, digits] of marks(view.longitude(0), view.longitude(width), view.perX, ACROSS, 180)) {
    const x = Math.round(view.x(at)) + 0.5
    stroke(pen, [x, 0], [x, height])
    pen.fillText(degrees(at, digits, "W", "E"), x + 4, height - 5)
  }
  for (const [at, digits] of marks(view.latitude(height), view.latitude(0), view.perY, UP, 90)) {
    const y = Math.round(view.y(at)) + 0.5
    stroke(pen, [0, y], [width, y])
    if (y < height - 16) pen.fillText(degrees(at, digits, "S", "N"), 6, y - 4) // below is the other one's row
  }
}

/** Round numbers from `low` to `high` within the earth, each with how many digits it has after the point. */
const marks = (low, high, perDegree, apart, most) => {
  const power = Math.floor(Math.log10(apart / perDegree))
  const round = STEPS.find(each => each * 10 ** power * perDegree >= apart) ?? 10 // where rounding left none
  const step = Math.min(WIDEST, round * 10 ** power)
  const first = Math.ceil(Math.max(low, -most) / step)
  const count = Math.floor(Math.min(high, most) / step) - first + 1
  return Array.from({ length: Math.max(0, count) }, (_, index) => [(first + index) * step, Math.max(0, -power)])
}

const degrees = (value, digits, under, over) => {
  const text = Math.abs(value).toFixed(digits)
  return `${text}°${Number(text) === 0 ? "" : ` ${value < 0 ? under : over}`}`
}

const stroke = (pen, from, to) => {
  pen.beginPath()
  pen.moveTo(...from)
  pen.lineTo(...to)
  pen.stroke()
}

/** Draws the outline, and leaves it as the pen's path. */
const trace = (pen, view, { lines }) => {
  pen.beginPath()
  for (const line of lines) line.forEach(([x, y], at) => pen[at ? "lineTo" : "moveTo"](view.x(x), view.y(y)))
  pen.stroke()
}

const paint = (pen, view, { parts }, newest) => {
  pen.lineWidth = newest ? 2.5 : 1.25
  for (const part of parts) {
    pen.globalAlpha = newest ? 1 : 0.55
    if (part.kind === "point") for (const position of part.lines[0]) dot(pen, view, position, newest)
    else trace(pen, view, part)
    pen.globalAlpha = newest ? 0.3 : 0.12
    if (part.kind === "area") pen.fill("evenodd")
  }
  pen.globalAlpha = 1
}

const dot = (pen, view, [longitude, latitude], newest) => {
  pen.beginPath()
  pen.arc(view.x(longitude), view.y(latitude), newest ? 4 : 3, 0, 2 * Math.PI)
  pen.fill()
  if (!newest) return
  pen.beginPath()
  pen.arc(view.x(longitude), view.y(latitude), 8, 0, 2 * Math.PI)
  pen.lineWidth = 1.5
  pen.stroke()
}
