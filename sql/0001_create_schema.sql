-- NOTIFY needs nothing in the database; what is durable will live here.
COMMENT ON SCHEMA hub IS 'pghub: Postgres events to websocket clients.';
