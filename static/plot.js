// One line over the last ten minutes, on a canvas.

import { joined, SPAN } from "/series.js"

const FONT = "11px system-ui, sans-serif"
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 8, 8, 18] // of the plot in its canvas, in CSS pixels
const STEPS = [2, 4, 6, 8, 10] // of which half is as round

/** Draws `pick` of each sample into `canvas`; `write` makes a number a text. */
export class Plot {
  #canvas
  #pick
  #write

  constructor(canvas, pick, write) {
    this.#canvas = canvas
    this.#pick = pick
    this.#write = write
  }

  /** `mark` is a sample to point at, or null. */
  draw(samples, now, mark) {
    const { clientWidth: width, clientHeight: height } = this.#canvas
    if (!width) return // not shown
    const pen = penOf(this.#canvas, width, height)
    const colours = getComputedStyle(this.#canvas)
    const top = roof(Math.max(0, ...samples.map(this.#pick).filter(Number.isFinite)))
    const place = {
      x: at => LEFT + (1 - (now - at) / SPAN) * (width - LEFT - RIGHT),
      y: value => TOP + (1 - value / top) * (height - TOP - BOTTOM),
    }
    this.#axes(pen, place, { width, height, top, now, colours })
    pen.strokeStyle = pen.fillStyle = colours.getPropertyValue("--accent")
    for (const line of this.#lines(samples)) this.#line(pen, place, line)
    if (mark && Number.isFinite(this.#pick(mark))) this.#mark(pen, place, mark, colours)
  }

  /** When it was at `x`, in CSS pixels from the canvas's left side. */
  timeAt(x, now) {
    const width = this.#canvas.clientWidth - LEFT - RIGHT
    return now - (1 - Math.min(1, Math.max(0, (x - LEFT) / width))) * SPAN
  }

  #axes(pen, { x, y }, { width, height, top, now, colours }) {
    pen.font = FONT
    pen.strokeStyle = colours.getPropertyValue("--line")
    pen.fillStyle = colours.getPropertyValue("--soft")
    pen.textBaseline = "middle"
    pen.textAlign = "right"
    for (const value of [0, top / 2, top]) {
      pen.beginPath()
      pen.moveTo(LEFT, Math.round(y(value)) + 0.5)
      pen.lineTo(width - RIGHT, Math.round(y(value)) + 0.5)
      pen.stroke()
      pen.fillText(this.#write(value), LEFT - 6, y(value))
    }
    pen.textBaseline = "bottom"
    pen.textAlign = "left"
    pen.fillText("10 min ago", LEFT, height)
    pen.textAlign = "center"
    pen.fillText("5 min", x(now - SPAN / 2), height)
    pen.textAlign = "right"
    pen.fillText("now", width - RIGHT, height)
  }

  /** Runs of samples without a break between them. */
  #lines(samples) {
    const lines = []
    let before = null
    for (const sample of samples) {
      if (!Number.isFinite(this.#pick(sample))) {
        before = null
        continue
      }
      if (before && joined(before, sample)) lines.at(-1).push(sample)
      else lines.push([sample])
      before = sample
    }
    return lines
  }

  #line(pen, { x, y }, samples) {
    pen.beginPath()
    for (const sample of samples) pen.lineTo(x(sample.at), y(this.#pick(sample)))
    pen.lineWidth = 1.5
    pen.lineJoin = "round"
    pen.stroke()
    pen.lineTo(x(samples.at(-1).at), y(0))
    pen.lineTo(x(samples[0].at), y(0))
    pen.globalAlpha = 0.12
    pen.fill()
    pen.globalAlpha = 1
  }

  #mark(pen, { x, y }, sample, colours) {
    pen.strokeStyle = colours.getPropertyValue("--soft")
    pen.lineWidth = 1
    pen.beginPath()
    pen.moveTo(x(sample.at), TOP)
    pen.lineTo(x(sample.at), y(0))
    pen.stroke()
    pen.beginPath()
    pen.arc(x(sample.at), y(this.#pick(sample)), 3.5, 0, 2 * Math.PI)
    pen.fill()
  }
}

/** A pen for the whole canvas, which it wipes, in CSS pixels. */
export const penOf = (canvas, width, height) => {
  const scale = devicePixelRatio || 1
  canvas.width = Math.round(width * scale)
  canvas.height = Math.round(height * scale)
  const pen = canvas.getContext("2d")
  pen.scale(scale, scale)
  return pen
}

/** The least round number that is not below `most`: the plot's upper end. */
const roof = most => {
  if (most <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(most))
  return STEPS.find(step => step * power >= most) * power
}
