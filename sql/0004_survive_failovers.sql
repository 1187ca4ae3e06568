-- What lets the log outlive a crash that loses commits, a failover, a restore and an upgrade: it knows which cluster it is
-- in, it divides its life into eras, and it keeps, for each, a moment that no crash can take back.

ALTER TABLE hub.log
    ADD COLUMN system bigint,
    ADD COLUMN era    integer NOT NULL DEFAULT pg_catalog.floor(pg_catalog.random() * 2147483647)::integer,
    ADD COLUMN floor  pg_snapshot;
COMMENT ON COLUMN hub.log.system IS 'The system identifier of the cluster that this log is in.';
COMMENT ON COLUMN hub.log.era IS 'Names the time since a hub last connected. Drawn by lot: one that a failover has lost must not come again.';
COMMENT ON COLUMN hub.log.floor IS 'What a hub had seen some seconds ago. Whoever finds this row finds all of that, since it was committed later.';

CREATE TABLE hub.floors (
    era      integer     PRIMARY KEY,
    floor    pg_snapshot,
    ended_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE hub.floors IS 'The eras that have ended, the last thousand of them.';
COMMENT ON COLUMN hub.floors.era IS 'As it stood in hub.log.';
COMMENT ON COLUMN hub.floors.floor IS 'From where to read on for whoever had seen something in this era that is lost; null for all there is.';
COMMENT ON COLUMN hub.floors.ended_at IS 'When the next one began.';
CREATE INDEX floors_by_end ON hub.floors (ended_at);

-- A row's xmin is its transaction, and so is its xid: that holds for all but those written in a savepoint, also after
-- pg_upgrade. Restored rows have the xmin of whoever restored them, and a COPY gives one to rows of many xids.
CREATE FUNCTION hub.is_restored() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(NOT bool_or(own) OR max(xids) > 1, true)
      FROM (SELECT bool_or(xmin::text::bigint = (xid::text::bigint & 4294967295)) AS own, count(DISTINCT xid) AS xids
              FROM hub.events GROUP BY xmin::text) AS of_transaction
$$;
COMMENT ON FUNCTION hub.is_restored() IS 'Whether the log has come here by a restore: then its xids mean nothing here. An empty one may have.';
REVOKE ALL ON FUNCTION hub.is_restored() FROM PUBLIC;

CREATE FUNCTION hub.arrive(OUT generation bigint, OUT era integer, OUT restored boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here bigint := (SELECT system_identifier FROM pg_control_system());
    log  hub.log;
BEGIN
    SELECT * INTO STRICT log FROM hub.log FOR UPDATE;
    restored := log.system IS NOT NULL AND log.system <> here AND hub.is_restored();
    IF restored THEN
        -- Its order is that of the ids; all of it is now of one transaction, this one.
        UPDATE hub.events SET xid = pg_current_xact_id();
        UPDATE hub.log SET generation = DEFAULT, horizon = '0', floor = NULL;
        DELETE FROM hub.floors;
    ELSE
        INSERT INTO hub.floors (era, floor) VALUES (log.era, log.floor)
        ON CONFLICT ON CONSTRAINT floors_pkey DO UPDATE SET floor = EXCLUDED.floor, ended_at = EXCLUDED.ended_at;
        DELETE FROM hub.floors AS old USING (SELECT ended_at FROM hub.floors ORDER BY ended_at DESC OFFSET 1000 LIMIT 1) AS last
         WHERE old.ended_at <= last.ended_at;
    END IF;
    UPDATE hub.log AS l SET system = here, era = DEFAULT
    RETURNING l.generation, l.era INTO STRICT arrive.generation, arrive.era;
    PERFORM set_config('synchronous_commit', 'local', true);  -- of this transaction: the era must be there after a crash
END $$;
COMMENT ON FUNCTION hub.arrive() IS 'Begins an era, and makes a restored log one of this cluster. Each hub calls it when it connects, before it reads.';
REVOKE ALL ON FUNCTION hub.arrive() FROM PUBLIC;

CREATE FUNCTION hub.set_floor(floor pg_snapshot) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM hub.log FOR NO KEY UPDATE SKIP LOCKED;  -- retention may hold it for seconds, and there is always a next time
    IF FOUND THEN
        PERFORM set_config('synchronous_commit', 'local', true);
        UPDATE hub.log SET floor = set_floor.floor;
    END IF;
END $$;
COMMENT ON FUNCTION hub.set_floor(pg_snapshot) IS 'Notes how far a hub has read, on the very connection on which it has.';
REVOKE ALL ON FUNCTION hub.set_floor(pg_snapshot) FROM PUBLIC;
