-- What lets the log outlive a crash that loses commits, a failover, a restore and an upgrade: it knows which cluster it is
-- in, it divides its life into eras, and it keeps, for each, a moment that no crash can take back.

CREATE TABLE hub.cluster (
    one    boolean PRIMARY KEY DEFAULT true,
    system bigint  NOT NULL,
    stamp  xid8    NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    CONSTRAINT single_cluster CHECK (one)
);
COMMENT ON TABLE hub.cluster IS 'Where a hub was last at work; one row, written by hub.arrive only.';
COMMENT ON COLUMN hub.cluster.one IS 'Keeps the table to one row.';
COMMENT ON COLUMN hub.cluster.system IS 'The system identifier of that cluster.';
COMMENT ON COLUMN hub.cluster.stamp IS 'The transaction that wrote the row: as its xmin says too, unless the row has been restored.';

ALTER TABLE hub.log
    ADD COLUMN era     integer NOT NULL DEFAULT pg_catalog.floor(pg_catalog.random() * 2147483647)::integer,
    ADD COLUMN floor   pg_snapshot,
    ADD COLUMN witness bigint[];
COMMENT ON COLUMN hub.log.era IS 'Names the time since a hub last connected. Drawn by lot: one that a failover has lost must not come again.';
COMMENT ON COLUMN hub.log.floor IS 'What a hub had seen some seconds ago. Whoever finds this row finds all of that, since it was committed later.';
COMMENT ON COLUMN hub.log.witness IS 'The floor''s witness: xid, id and time in microseconds; null if nothing had been seen.';

CREATE TABLE hub.floors (
    era      integer     PRIMARY KEY,
    floor    pg_snapshot,
    witness  bigint[],
    ended_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE hub.floors IS 'The eras that have ended, the last thousand of them.';
COMMENT ON COLUMN hub.floors.era IS 'As it stood in hub.log.';
COMMENT ON COLUMN hub.floors.floor IS 'From where to read on for whoever had seen something in this era that is lost; null for all there is.';
COMMENT ON COLUMN hub.floors.witness IS 'The floor''s witness.';
COMMENT ON COLUMN hub.floors.ended_at IS 'When the next one began.';
CREATE INDEX floors_by_end ON hub.floors (ended_at);

-- pg_upgrade leaves a row's xmin as it was, and a restore gives it the restoring transaction's. That this one should have
-- the stamp's number by chance is unlikely; that it also has rows of one transaction only is not to be feared.
CREATE FUNCTION hub.is_restored() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM hub.cluster AS c WHERE c.xmin::text::bigint = c.stamp::text::bigint & 4294967295)
        OR EXISTS (SELECT FROM hub.events AS e GROUP BY e.xmin::text HAVING min(e.xid::text::bigint) < max(e.xid::text::bigint))
$$;
COMMENT ON FUNCTION hub.is_restored() IS 'Whether the log has come here by a restore: then its xids mean nothing here.';
REVOKE ALL ON FUNCTION hub.is_restored() FROM PUBLIC;

CREATE FUNCTION hub.arrive(OUT generation bigint, OUT era integer, OUT restored boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here bigint := (SELECT system_identifier FROM pg_control_system());
    log  hub.log;
BEGIN
    SELECT * INTO STRICT log FROM hub.log FOR UPDATE;
    restored := EXISTS (SELECT FROM hub.cluster AS c WHERE c.system <> here) AND hub.is_restored();
    IF restored THEN
        -- Its order is that of the ids; all of it is now of one transaction, this one.
        UPDATE hub.events SET xid = pg_current_xact_id();
        UPDATE hub.log SET generation = DEFAULT, horizon = '0', floor = NULL, witness = NULL;
        DELETE FROM hub.floors;
    ELSE
        INSERT INTO hub.floors (era, floor, witness) VALUES (log.era, log.floor, log.witness)
        ON CONFLICT ON CONSTRAINT floors_pkey DO UPDATE
        SET floor = EXCLUDED.floor, witness = EXCLUDED.witness, ended_at = EXCLUDED.ended_at;
        DELETE FROM hub.floors AS old USING (SELECT ended_at FROM hub.floors ORDER BY ended_at DESC OFFSET 1000 LIMIT 1) AS last
         WHERE old.ended_at <= last.ended_at;
    END IF;
    UPDATE hub.log AS l SET era = DEFAULT RETURNING l.generation, l.era INTO STRICT arrive.generation, arrive.era;
    INSERT INTO hub.cluster (system) VALUES (here)
    ON CONFLICT ON CONSTRAINT cluster_pkey DO UPDATE SET system = EXCLUDED.system, stamp = EXCLUDED.stamp
     WHERE cluster.system <> EXCLUDED.system;
    PERFORM set_config('synchronous_commit', 'local', true);  -- of this transaction: the era must be there after a crash
END $$;
COMMENT ON FUNCTION hub.arrive() IS 'Begins an era, and makes a restored log one of this cluster. Each hub calls it when it connects, before it reads.';
REVOKE ALL ON FUNCTION hub.arrive() FROM PUBLIC;

CREATE FUNCTION hub.set_floor(floor pg_snapshot, witness bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM hub.log FOR NO KEY UPDATE SKIP LOCKED;  -- retention may hold it for seconds, and there is always a next time
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM set_config('synchronous_commit', 'local', true);
    UPDATE hub.log SET floor = set_floor.floor, witness = set_floor.witness;
    RETURN true;
END $$;
COMMENT ON FUNCTION hub.set_floor(pg_snapshot, bigint[]) IS 'Notes how far a hub has read, on the very connection on which it has; false where it did not get to it.';
REVOKE ALL ON FUNCTION hub.set_floor(pg_snapshot, bigint[]) FROM PUBLIC;
