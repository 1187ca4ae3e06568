// Numbers, times and texts as the dashboard writes them.

export const number = new Intl.NumberFormat("en")
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 }
export const clock = new Intl.DateTimeFormat("en-GB", CLOCK)
export const clockUtc = new Intl.DateTimeFormat("en-GB", { ...CLOCK, timeZone: "UTC" })
export const plural = (count, what) => `${number.format(count)} ${what}${count === 1 ? "" : "s"}`
export const clip = (text, length = 400) => (text.length > length ? `${text.slice(0, length)}…` : text)

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 })
const UNITS = ["B", "KB", "MB", "GB", "TB"]

/** What a hub does not tell, an older one perhaps, is a dash. */
const told = write => value => (Number.isFinite(value) ? write(value) : "–")

/** In few characters: 12,345 is 12.3K. */
export const short = told(value => (value < 10_000 ? number.format(Math.round(value)) : compact.format(value)))

/** A rate: 0.4, 12, 1,234. */
export const rate = told(value => (value > 0 && value < 10 ? String(Math.round(value * 10) / 10) : short(value)))

/** Milliseconds: 0.4 ms, 12 ms, 3.2 s. */
export const milliseconds = told(value => {
  if (value >= 1_000) return `${rate(value / 1_000)} s`
  return `${value < 10 ? Math.round(value * 100) / 100 : Math.round(value)} ms`
})

/** Bytes, by powers of 1,000: 12 KB. */
export const bytes = told(value => {
  const step = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)))
  return `${rate(value / 1_000 ** step)} ${UNITS[step]}`
})

/** How long ago `at` was, a time as text: 5 s, 3 min, 2 h, 4 d. */
export const age = (at, now = Date.now()) => {
  const seconds = Math.max(0, (now - Date.parse(at)) / 1_000)
  if (Number.isNaN(seconds)) return "–"
  if (seconds < 100) return `${Math.round(seconds)} s`
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`
}
