-- The demo shop: a table of orders whose changes are told on the channel `orders`.
-- Run at each start of `pghub serve --demo`, so every statement can be repeated; that they were before is no news.

SET client_min_messages = 'warning';

CREATE SCHEMA IF NOT EXISTS demo;
COMMENT ON SCHEMA demo IS 'The demo shop of pghub. Nothing depends on it: DROP SCHEMA demo CASCADE removes it.';

CREATE TABLE IF NOT EXISTS demo.orders (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer   text          NOT NULL,
    item       text          NOT NULL,
    total      numeric(10,2) NOT NULL CHECK (total > 0),
    status     text          NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'paid', 'shipped', 'cancelled')),
    updated_at timestamptz   NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE demo.orders IS 'Orders of the demo shop; the oldest go when there are more than 500.';

-- A trigger of the shop's own told the changes before tables could be watched.
DROP TRIGGER IF EXISTS tell ON demo.orders;
DROP FUNCTION IF EXISTS demo.tell();

SELECT hub.watch('demo.orders', channel => 'orders');
