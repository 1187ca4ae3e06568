"""pghub: Postgres events to websocket clients."""
