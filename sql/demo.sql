-- The demo shop: a table of orders whose changes are told on the channel `orders`.
-- Run at each start of `pghub serve --demo`, so every statement can be repeated.

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

CREATE OR REPLACE FUNCTION demo.tell() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM hub.publish('orders', jsonb_build_object('op', lower(tg_op), 'order', to_jsonb(new)));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION demo.tell() IS 'Publishes a new or changed order on the channel orders.';

CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE ON demo.orders FOR EACH ROW EXECUTE FUNCTION demo.tell();
COMMENT ON TRIGGER tell ON demo.orders IS 'A rolled-back transaction publishes nothing.';
