-- The durable log: events in a table, a bell for hubs that sleep, and the function that producers call.
--
-- Every name in a function is schema-qualified, operators too: it runs with its owner's rights, and a caller's
-- search_path must not decide what it calls. (SET search_path on the function would do as well, and costs more.)

CREATE TABLE hub.log (
    one        boolean PRIMARY KEY DEFAULT true,
    generation bigint  NOT NULL DEFAULT pg_catalog.floor(pg_catalog.random() * 4611686018427387904)::bigint,
    horizon    xid8    NOT NULL DEFAULT '0',
    CONSTRAINT single CHECK (one)
);
COMMENT ON TABLE hub.log IS 'What is true of the log as a whole; one row.';
COMMENT ON COLUMN hub.log.one IS 'Keeps the table to one row.';
COMMENT ON COLUMN hub.log.generation IS 'Names this log; another one after a TRUNCATE.';
COMMENT ON COLUMN hub.log.horizon IS '1 + the greatest xid that retention has deleted; before it nothing is left.';
INSERT INTO hub.log DEFAULT VALUES;

CREATE TABLE hub.events (
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    xid          xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    channel      text        COLLATE "C" NOT NULL,
    payload      jsonb       NOT NULL,
    tags         text[]      NOT NULL DEFAULT '{}',
    source       inet        DEFAULT pg_catalog.inet_client_addr(),
    published_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (xid, id),
    CONSTRAINT legal_channel CHECK (
        octet_length(channel) BETWEEN 1 AND 63
        AND channel !~ '[\x01-\x1f\x7f-\x9f*]'
        AND channel !~ '^(\$|hub_)'
    ),
    CONSTRAINT payload_fits CHECK (octet_length(payload::text) <= 786432),
    CONSTRAINT tags_fit CHECK (cardinality(tags) <= 32 AND octet_length(tags::text) <= 4096)
);
-- A row carries the xid of the transaction that writes it: a forged one could hide the rows behind it for ever. NOT
-- VALID lets pg_dump load rows that are there already, since it adds the constraint after the data.
ALTER TABLE hub.events ADD CONSTRAINT own_xid CHECK (xid = pg_current_xact_id()) NOT VALID;
-- Uncompressed, pg_column_size tells what a payload will take in memory, without reading it.
ALTER TABLE hub.events ALTER COLUMN payload SET STORAGE EXTERNAL;
-- The primary key serves the tail, which reads by xid; these serve readers who go back: of some channels, and of patterns.
CREATE INDEX events_by_channel ON hub.events (channel, id);
CREATE INDEX events_by_id ON hub.events (id);
COMMENT ON TABLE hub.events IS 'The durable log. Producers call hub.publish, or INSERT or COPY channel, payload and tags.';
COMMENT ON COLUMN hub.events.id IS 'Names the event together with published_at; ids alone may be given out again after a crash.';
COMMENT ON COLUMN hub.events.xid IS 'The transaction that published it: what readers compare snapshots with.';
COMMENT ON COLUMN hub.events.channel IS 'As a channel of NOTIFY: 1 to 63 bytes, no control characters, no *.';
COMMENT ON COLUMN hub.events.payload IS 'Any JSON, up to 768 KiB of text.';
COMMENT ON COLUMN hub.events.tags IS 'Words to select by; up to 32.';
COMMENT ON COLUMN hub.events.source IS 'The address that the producer came from; null over a Unix socket.';
COMMENT ON COLUMN hub.events.published_at IS 'When it was written; it becomes visible with the commit.';

CREATE TABLE hub.keys (
    key     text        PRIMARY KEY,
    event   bigint,
    used_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT key_fits CHECK (octet_length(key) BETWEEN 1 AND 255)
);
COMMENT ON TABLE hub.keys IS 'Keys that events were published with, for a day: publishing again with one publishes nothing.';
COMMENT ON COLUMN hub.keys.key IS 'What the publisher chose.';
COMMENT ON COLUMN hub.keys.event IS 'The id of the event that was published with it.';
COMMENT ON COLUMN hub.keys.used_at IS 'When.';
CREATE INDEX keys_by_age ON hub.keys (used_at);

CREATE TABLE hub.bell ();
COMMENT ON TABLE hub.bell IS 'Locked, never filled: in SHARE MODE by a hub that sleeps, in ROW EXCLUSIVE MODE by a producer.';

-- Both functions on the publishing path do without expressions of plpgsql, which cost each transaction a start: RETURN
-- NEW instead of NULL, one function for each kind of call instead of an IF.
CREATE FUNCTION hub.ring() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    -- NOTIFY holds a lock of the whole database through the commit, so it is sent to sleeping hubs only. Locks, unlike
    -- rows, are the same for all snapshots: a producer with an old one rings too.
    BEGIN
        LOCK TABLE hub.bell IN ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        IF pg_catalog.current_setting('hub.ring', true) IS NULL
           OR pg_catalog.current_setting('hub.ring', true) OPERATOR(pg_catalog.<>) 'off' THEN
            PERFORM pg_catalog.pg_notify('hub_bell', '');
        END IF;
    END;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION hub.ring() IS 'Wakes sleeping hubs, by NOTIFY hub_bell. SET hub.ring = off for PREPARE TRANSACTION, which refuses NOTIFY.';
REVOKE ALL ON FUNCTION hub.ring() FROM PUBLIC;
CREATE TRIGGER ring AFTER INSERT ON hub.events FOR EACH STATEMENT EXECUTE FUNCTION hub.ring();
ALTER TABLE hub.events ENABLE ALWAYS TRIGGER ring;

CREATE FUNCTION hub.doze() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE hub.bell IN SHARE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN  -- a bare LOCK would write an error to the server's log
    RETURN false;
END $$;
COMMENT ON FUNCTION hub.doze() IS 'Makes producers ring until the end of this transaction; false while one is in flight.';
REVOKE ALL ON FUNCTION hub.doze() FROM PUBLIC;

CREATE FUNCTION hub.forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE hub.log SET generation = DEFAULT;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION hub.forget() IS 'After a TRUNCATE no older cursor means anything.';
REVOKE ALL ON FUNCTION hub.forget() FROM PUBLIC;
CREATE TRIGGER forget AFTER TRUNCATE ON hub.events FOR EACH STATEMENT EXECUTE FUNCTION hub.forget();
ALTER TABLE hub.events ENABLE ALWAYS TRIGGER forget;

CREATE FUNCTION hub.publish(channel text, payload jsonb, tags text[] DEFAULT '{}')
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    published bigint;
BEGIN
    INSERT INTO hub.events (channel, payload, tags)
    VALUES (publish.channel, publish.payload, COALESCE(publish.tags, '{}'))
    RETURNING events.id INTO published;
    RETURN published;
END $$;
COMMENT ON FUNCTION hub.publish(text, jsonb, text[]) IS 'Publishes an event with the commit of this transaction; returns its id.';
REVOKE ALL ON FUNCTION hub.publish(text, jsonb, text[]) FROM PUBLIC;

CREATE FUNCTION hub.publish_once(channel text, payload jsonb, key text, tags text[] DEFAULT '{}')
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    published bigint;
BEGIN
    INSERT INTO hub.keys AS used (key) VALUES (publish_once.key)
    ON CONFLICT ON CONSTRAINT keys_pkey DO UPDATE SET used_at = EXCLUDED.used_at
        WHERE used.used_at OPERATOR(pg_catalog.<)
            (EXCLUDED.used_at OPERATOR(pg_catalog.-) '24 hours'::pg_catalog.interval);
    IF NOT FOUND THEN
        SELECT used.event INTO published FROM hub.keys AS used
         WHERE used.key OPERATOR(pg_catalog.=) publish_once.key;
        RETURN published;
    END IF;
    published := hub.publish(publish_once.channel, publish_once.payload, publish_once.tags);
    UPDATE hub.keys AS used SET event = published WHERE used.key OPERATOR(pg_catalog.=) publish_once.key;
    RETURN published;
END $$;
COMMENT ON FUNCTION hub.publish_once(text, jsonb, text, text[]) IS 'As hub.publish, but with a key that was used within 24 hours it publishes nothing and returns the id of then.';
REVOKE ALL ON FUNCTION hub.publish_once(text, jsonb, text, text[]) FROM PUBLIC;
