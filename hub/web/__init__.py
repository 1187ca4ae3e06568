"""HTTP and websockets. aiohttp is imported here and nowhere else in the hub's server."""
