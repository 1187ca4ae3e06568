// What to type in psql, so that something comes.

const isPattern = name => name.includes("*")

/** A channel to publish to that a subscription of this name hears. */
export const channelOf = name => name?.replace(/[*]+/g, "new")

/** Statements that publish to what a subscription of this name hears. */
export const exampleFor = name => {
  const channel = channelOf(name)
  const publish = `SELECT hub.publish('${channel.replaceAll("'", "''")}', '{"id": 1}');`
  if (isPattern(name)) return publish // which means durable events only
  const plain = /^[a-z_][a-z0-9_]*$/.test(channel)
  const identifier = plain ? channel : `"${channel.replaceAll('"', '""')}"`
  return `${publish}\n-- or, for those who listen now only:\nNOTIFY ${identifier}, '{"id": 1}';`
}
