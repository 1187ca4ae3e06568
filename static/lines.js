// Lines of text, as they come from a hub that may be busy, slow or gone.

import { HubError } from "./errors.js"

const MOST_PATIENCE = 30_000 // milliseconds: for the next bytes, and with a hub that says when to come again
const PASSING = new Set([408, 425, 429]) // statuses below 500 that another try may change

/**
 * The lines at `url`, asked for with `headers`; `reading` is an AbortController, and aborted in any case at the end.
 *
 * Throws a HubError for an answer that is none; with `retryAfter`, in milliseconds, if another try may do better. A hub
 * that sends nothing for half a minute is given up, with an AbortError.
 */
export async function* lines(url, headers, reading, patience = MOST_PATIENCE) {
  let silence
  const expect = () => {
    clearTimeout(silence)
    silence = setTimeout(() => reading.abort(), patience)
  }
  expect()
  try {
    const response = await fetch(url, { headers, cache: "no-store", signal: reading.signal })
    if (!response.ok) throw await refusal(response)
    let rest = ""
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      expect()
      const parts = (rest + value).split("\n")
      rest = parts.pop()
      yield* parts
    }
    if (rest) yield rest
  } finally {
    clearTimeout(silence)
    reading.abort()
  }
}

/** The HubError that an answer which is none stands for; with `retryAfter`, as above. */
export const refusal = async response => {
  const { status } = response
  const { error } = (await response.json().catch(() => null)) ?? {}
  const message = error?.message ?? `The hub answered with status ${status}.`
  const refused = new HubError(error?.code ?? `http_${status}`, message)
  if (status < 500 && !PASSING.has(status)) return refused
  const seconds = Number(response.headers.get("Retry-After")) || 0
  return Object.assign(refused, { retryAfter: Math.min(1_000 * seconds, MOST_PATIENCE) })
}
