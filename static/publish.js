// The form that publishes.

const $ = id => document.getElementById(id)

/** Lets the form publish by `hub`; `channel` is what it begins with. */
export const begin = (hub, channel = "") => {
  $("publish-channel").value = channel
  $("publish").addEventListener("submit", submit => {
    submit.preventDefault()
    publish(hub)
  })
}

const publish = async hub => {
  try {
    const durable = !$("notify").checked
    const id = await hub.publish($("publish-channel").value, payloadOf($("payload").value), { durable })
    say(`Published ${durable ? `as #${id}` : "by NOTIFY"} at ${new Date().toLocaleTimeString("en-GB")}`, false)
  } catch (error) {
    say(error.message, true)
  }
}

const payloadOf = text => {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (/^\s*[[{"]/.test(text)) throw new Error(`This is no JSON: ${error.message}`)
    return text // plain text is a payload too
  }
}

const say = (text, bad) => {
  $("publish-result").textContent = text
  $("publish-result").classList.toggle("bad", bad)
}
