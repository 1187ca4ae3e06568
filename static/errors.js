/** What the hub refused, or what became of a request. `code` is the hub's, or "disconnected" or "closed". */
export class HubError extends Error {
  constructor(code, message, channels = []) {
    super(message)
    this.name = "HubError"
    this.code = code
    this.channels = channels
  }
}
