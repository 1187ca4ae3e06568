// Light or dark: as the system is, until the button says otherwise.

import { stored } from "/stored.js"

const NAME = "theme"
const root = document.documentElement
const dark = matchMedia("(prefers-color-scheme: dark)")

/** Calls `onChange` whenever the colours have become others. */
export const begin = onChange => {
  const chosen = stored("localStorage", storage => storage.getItem(NAME))
  if (chosen) root.dataset.theme = chosen
  dark.addEventListener("change", onChange)
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light")
    root.dataset.theme = now === "dark" ? "light" : "dark"
    stored("localStorage", storage => storage.setItem(NAME, root.dataset.theme))
    onChange()
  })
}
