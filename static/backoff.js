const FIRST_DELAY = 1_000
const MOST_DELAY = 30_000

/** What lasted this long was good: the next delay starts small again. */
export const STEADY = MOST_DELAY

/** Full jitter: milliseconds before try number `attempt`, counted from 0. */
export const delayBefore = (attempt, random = Math.random) =>
  random() * Math.min(MOST_DELAY, FIRST_DELAY * 2 ** Math.min(attempt, 20))
