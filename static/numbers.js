// Postgres's numbers have as many digits as they need, JavaScript's about 16: the id 9007199254740993 would be read as
// …992, and two rows as one.

const LONG = /[\d.]{16}/

/**
 * JSON.parse, but a number that JavaScript cannot hold with all its digits comes as a string: its text.
 *
 * In a browser that does not tell the text of a number (before Chrome 114, Firefox 135, Safari 18.4), it is rounded.
 */
export const parseExact = text => (isLong(text) ? JSON.parse(text, exact) : JSON.parse(text))

/** Whether there may be such a number in a JSON text: reading with a reviver takes ten times as long. */
export const isLong = text => LONG.test(text)

const exact = (_name, value, context) => {
  if (typeof value !== "number" || context?.source === undefined) return value
  return digits(context.source) === digits(String(value)) ? value : context.source
}

/** The digits that count: 0.10, 1e20 and 100 have the same. */
const digits = number => {
  const text = number.replace(/e.*/i, "").replace(/[-.]/g, "").replace(/^0+/, "")
  let end = text.length // not by a regular expression: /0+$/ takes the square of a long number's length
  while (text[end - 1] === "0") end -= 1
  return text.slice(0, end)
}
