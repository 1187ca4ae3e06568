// A file from the hub. It is asked for by fetch, since a link shows no token.

import { bytes } from "/format.js"

const TYPES = { csv: "text/csv", ndjson: "application/x-ndjson" }
const STEP = 1e6 // bytes from one word about it to the next

/** Saves what `hub` has at `path` as `format`; calls `tell` with how far it is. Resolves with its size, as a text. */
export const save = async (hub, path, format, signal, tell) => {
  const response = await hub.fetch(path, { headers: { Accept: TYPES[format] }, signal })
  const told = new Response(response.body.pipeThrough(counted(tell)))
  const file = await told.blob() // a browser keeps a large one on the disk
  const link = document.createElement("a")
  link.href = URL.createObjectURL(file)
  link.download = `events-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${format}`
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000) // once the browser has taken it
  return bytes(file.size)
}

const counted = tell => {
  let size = 0
  let next = STEP
  return new TransformStream({
    transform(chunk, controller) {
      size += chunk.byteLength
      if (size >= next) {
        tell(`${bytes(size)} …`)
        next = size + STEP
      }
      controller.enqueue(chunk)
    },
  })
}
