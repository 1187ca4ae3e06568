// The plots of the hub: a few lines over the same ten minutes, read by pointing at them or with the arrow keys.

import { bytes, milliseconds, rate, short } from "/format.js"
import { Plot } from "/plot.js"
import { SPAN } from "/series.js"

const STEP = 5_000 // milliseconds that an arrow key goes
const PAGE = 60_000
const $ = id => document.getElementById(id)

const PLOTS = [
  ["Events in", "a second", each => each.events_in_rate, rate],
  ["Delivery, p99", "", each => each.p99_ms, milliseconds],
  ["Clients", "", each => each.clients, short],
  ["Bytes out", "a second", each => each.bytes_out_rate, bytes],
]

/** Draws a Series. All plots point at the same moment. */
export class Plots {
  #series
  #ago = null // milliseconds before now that is pointed at; null for none
  #all

  constructor(series) {
    this.#series = series
    this.#all = PLOTS.map(([name, unit, pick, write]) => this.#make({ name, unit, pick, write }))
    $("plots").replaceChildren(...this.#all.map(each => each.figure))
    new ResizeObserver(() => this.draw()).observe($("plots"))
  }

  /** `asked` is whether somebody has just pointed elsewhere, and not time gone on. */
  draw(asked = false) {
    const now = Date.now()
    const mark = this.#ago === null ? null : this.#series.near(now - this.#ago)
    for (const each of this.#all) {
      each.plot.draw(this.#series.samples, now, mark)
      this.#tell(each, mark, asked)
    }
  }

  #make({ name, unit, pick, write }) {
    const figure = $("plot-template").content.firstElementChild.cloneNode(true)
    const canvas = figure.querySelector("canvas")
    const plot = new Plot(canvas, pick, write)
    figure.querySelector(".name").textContent = unit ? `${name}, ${unit}` : name
    canvas.setAttribute("aria-label", `${name}${unit && ` ${unit}`}, the last ten minutes`)
    canvas.setAttribute("aria-valuemin", -SPAN / 1_000)
    canvas.addEventListener("pointermove", ({ offsetX }) => this.#point(Date.now() - plot.timeAt(offsetX, Date.now())))
    canvas.addEventListener("pointerleave", () => this.#point(null))
    canvas.addEventListener("blur", () => this.#point(null))
    canvas.addEventListener("keydown", press => this.#move(press))
    return { figure, canvas, plot, pick, write }
  }

  #point(ago) {
    this.#ago = ago === null ? null : Math.min(SPAN, Math.max(0, ago))
    this.draw(true)
  }

  #move(press) {
    const ago = this.#ago ?? 0
    const steps = {
      ArrowLeft: ago + STEP,
      ArrowRight: ago - STEP,
      PageUp: ago + PAGE,
      PageDown: ago - PAGE,
      Home: SPAN,
      End: 0,
      Escape: null,
    }
    if (!(press.key in steps)) return
    press.preventDefault()
    this.#point(steps[press.key])
  }

  #tell({ figure, canvas, pick, write }, mark, asked) {
    const { samples } = this.#series
    const values = samples.map(pick).filter(Number.isFinite)
    const last = samples.length ? write(pick(samples.at(-1))) : "–"
    const most = values.length ? `, at most ${write(Math.max(...values))}` : ""
    const ago = Math.round((this.#ago ?? 0) / 1_000)
    const text = this.#ago === null ? `now ${last}${most}` : `${ago} s ago: ${mark ? write(pick(mark)) : "–"}`
    figure.querySelector(".readout").textContent = text
    // What changes by itself each second is not to be read out to who stays there.
    if (!asked && document.activeElement === canvas) return
    canvas.setAttribute("aria-valuenow", -ago)
    canvas.setAttribute("aria-valuetext", text)
  }
}
