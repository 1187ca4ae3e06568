// Events of the past once more in the feed: as fast as they came, faster, or all at once.

import { plural } from "/format.js"

const LONGEST = 5_000 // milliseconds of waiting for the next one: nobody replays a night

/** Replays into `feed`; calls `onChange` with what there is to say about it. */
export class Replay {
  running = false
  #feed
  #onChange
  #wake = () => {}

  constructor(feed, onChange) {
    this.#feed = feed
    this.#onChange = onChange
  }

  /** Replays `pages`, an iterator of arrays of events, so many times as fast as they came; with Infinity at once. */
  async run(pages, speed) {
    this.running = true
    let count = 0
    let before = null
    this.#onChange("replaying …")
    try {
      for await (const events of pages) {
        for (const event of events) {
          const at = Date.parse(event.at)
          await this.#wait(before === null ? 0 : (at - before) / speed)
          if (!this.running) break
          before = at
          this.#feed.again(event)
          count += 1
        }
        if (!this.running) break
        this.#onChange(`replaying: ${plural(count, "event")} …`)
        await this.#wait(1) // for the page to be drawn
      }
      this.#end(`replayed ${plural(count, "event")}`)
    } catch (error) {
      this.#end(error.message)
    }
  }

  stop() {
    this.running = false
    this.#wake()
  }

  #wait(milliseconds) {
    if (milliseconds < 1) return undefined // of some that came together, the first has waited for all
    return new Promise(resolve => {
      this.#wake = resolve
      setTimeout(resolve, Math.min(milliseconds, LONGEST))
    })
  }

  #end(text) {
    this.running = false
    this.#onChange(text)
  }
}
