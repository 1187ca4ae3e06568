/** Uses the browser's storage of this name; null where it keeps nothing for us. */
export const stored = (name, use) => {
  try {
    return use(globalThis[name])
  } catch {
    return null
  }
}
