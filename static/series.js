// The last ten minutes of the hub's reports on itself, one a second.

export const SPAN = 600_000 // milliseconds
const BREAK = 5_000 // between two reports: nobody knows what was in between
const TOTALS = ["events_in", "deliveries", "bytes_out"]

/** Samples {at, …}, the oldest first: a report's numbers, and of its totals how many a second there were. */
export class Series {
  samples = []
  #before = null

  /** Adds a report that came at `at`, in milliseconds of the page's clock; returns its sample. */
  add(report, at) {
    const { pool = {}, ...numbers } = report
    const sample = { ...numbers, pool, at, ...this.#rates(report, at) }
    this.#before = { report, at }
    this.samples.push(sample)
    const old = this.samples.findIndex(each => each.at >= at - SPAN)
    this.samples.splice(0, old)
    return sample
  }

  /** A hub that was started again counts from 0 again: then there is no rate. */
  #rates(report, at) {
    const before = this.#before
    if (!before || at - before.at > BREAK || at <= before.at) return {}
    const rates = TOTALS.map(name => [`${name}_rate`, ((report[name] - before.report[name]) * 1_000) / (at - before.at)])
    return Object.fromEntries(rates.filter(([, rate]) => rate >= 0))
  }

  /** The sample nearest to `at`, or null where there is none near. */
  near(at) {
    let best = null
    for (const sample of this.samples) {
      if (Math.abs(sample.at - at) <= Math.abs((best?.at ?? Infinity) - at)) best = sample
    }
    return best && Math.abs(best.at - at) < BREAK ? best : null
  }
}

/** Whether a line may go from one sample to the next. */
export const joined = (one, next) => next.at - one.at <= BREAK
