// Asks the person at the dashboard for a token, where the hub wants one. It is kept as long as the tab is open.

import { stored } from "/stored.js"

const NAME = "token"
const $ = id => document.getElementById(id)
const keep = token => stored("sessionStorage", storage => storage.setItem(NAME, token))
const forget = () => stored("sessionStorage", storage => storage.removeItem(NAME))

/** The token that is kept, or one from the person, who is told why the last one was `refused`. */
export const token = async refused => {
  if (!refused) {
    const kept = stored("sessionStorage", storage => storage.getItem(NAME))
    if (kept) return kept
  }
  forget()
  const given = await ask(refused?.message ?? "")
  keep(given)
  return given
}

/** Asks for another token, and begins again with it. */
export const askAgain = async why => {
  forget()
  keep(await ask(why))
  location.reload()
}

const ask = why => {
  $("gate-error").textContent = why
  $("gate-token").value = ""
  $("gate").showModal()
  return new Promise(resolve => {
    $("gate-form").onsubmit = submit => {
      submit.preventDefault()
      const given = $("gate-token").value.trim()
      if (!given) return
      $("gate").close()
      resolve(given)
    }
  })
}

// There is nothing behind it to go back to.
$("gate").addEventListener("cancel", cancel => cancel.preventDefault())
