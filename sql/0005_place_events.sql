-- Places: where events have happened, for databases that have PostGIS. They lie beside the log, in a table that is made
-- when PostGIS is there, and go with their events: the log itself needs none of it.
SET LOCAL search_path = pg_catalog, pg_temp;

ALTER TABLE hub.log ADD COLUMN places text;
COMMENT ON COLUMN hub.log.places IS 'The schema of PostGIS, quoted where it has to be, once events can have a place; null before.';

CREATE OR REPLACE FUNCTION hub.forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE hub.log SET generation = DEFAULT;
    IF to_regclass('hub.places') IS NOT NULL THEN
        TRUNCATE hub.places;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION hub.arrive(OUT generation bigint, OUT era integer, OUT restored boolean)
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
        IF to_regclass('hub.places') IS NOT NULL THEN
            UPDATE hub.places SET xid = pg_current_xact_id();
        END IF;
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

CREATE FUNCTION hub.make_places(home text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DROP TABLE IF EXISTS hub.places CASCADE;
    -- In what follows PostGIS lives in `postgis`, until that is replaced by where it does. Its functions are called by
    -- the very types they have: anybody who may create in that schema could make one there that fits others better.
    EXECUTE replace($sql$
CREATE TABLE hub.places (
    xid       xid8   NOT NULL,
    id        bigint NOT NULL,
    place     postgis.geometry,
    published postgis.geometry,
    PRIMARY KEY (xid, id)
);
-- As in hub.events, and for the same reasons.
ALTER TABLE hub.places ADD CONSTRAINT own_xid CHECK (xid = pg_current_xact_id()) NOT VALID;
ALTER TABLE hub.places ALTER COLUMN place SET STORAGE EXTERNAL;
CREATE INDEX places_by_place ON hub.places USING gist (place);
COMMENT ON TABLE hub.places IS 'Where events have happened, for those that have a place. It is written by functions of the hub only.';
COMMENT ON COLUMN hub.places.xid IS 'The xid of the event.';
COMMENT ON COLUMN hub.places.id IS 'The id of the event.';
COMMENT ON COLUMN hub.places.place IS 'Where, in WGS 84 and as one of the types of GeoJSON: what fences are compared with. Null: it cannot be told so.';
COMMENT ON COLUMN hub.places.published IS 'The place as it was published, if that is something else: another SRID, a curve, a measure.';

CREATE VIEW hub.placed AS
SELECT e.id, e.xid, e.channel, e.payload, e.tags, e.source, e.published_at, p.place
  FROM hub.events AS e LEFT JOIN hub.places AS p ON p.xid = e.xid AND p.id = e.id;
COMMENT ON VIEW hub.placed IS 'The durable log with places. INSERT or COPY channel, payload, tags and place to publish.';
COMMENT ON COLUMN hub.placed.id IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.xid IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.channel IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.payload IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.tags IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.source IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.published_at IS 'As in hub.events.';
COMMENT ON COLUMN hub.placed.place IS 'Where it has happened, in WGS 84; null if it has no place.';

CREATE FUNCTION hub.located(place postgis.geometry) RETURNS postgis.geometry
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
    found postgis.geometry := place;
    edges postgis.box3d;
BEGIN
    IF postgis.st_srid(place) = 0 THEN
        found := postgis.st_setsrid(place, 4326);
    ELSIF postgis.st_srid(place) <> 4326 THEN
        BEGIN
            found := postgis.st_transform(place, 4326);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'the place cannot be transformed from SRID % to WGS 84: %', postgis.st_srid(place), SQLERRM
                USING ERRCODE = 'invalid_parameter_value';
        END;
    END IF;
    IF postgis.geometrytype(found) IN ('TRIANGLE', 'TIN', 'POLYHEDRALSURFACE') THEN
        found := postgis.st_unaryunion(postgis.st_collect(ARRAY(
            SELECT postgis.st_makepolygon(postgis.st_exteriorring(face.geom)) FROM postgis.st_dump(found) AS face)), -1::float8);
    ELSIF postgis.geometrytype(found) NOT IN
          ('POINT', 'LINESTRING', 'POLYGON', 'MULTIPOINT', 'MULTILINESTRING', 'MULTIPOLYGON') THEN
        found := postgis.st_curvetoline(found, 32::float8, 0, 0);
    END IF;
    IF postgis.st_zmflag(found) = 1 THEN
        found := postgis.st_force2d(found);
    ELSIF postgis.st_zmflag(found) = 3 THEN
        found := postgis.st_force3dz(found, 0::float8);
    END IF;
    IF postgis.st_npoints(found) > 10000 THEN
        RAISE EXCEPTION 'the place has % points; 10000 are the most', postgis.st_npoints(found)
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    IF postgis.st_isempty(found) THEN
        RETURN found;
    END IF;
    edges := found::postgis.box3d;
    IF (postgis.st_xmin(edges) >= -180 AND postgis.st_xmax(edges) <= 180
        AND postgis.st_ymin(edges) >= -90 AND postgis.st_ymax(edges) <= 90) IS NOT TRUE
       OR postgis.st_zmflag(found) = 2 AND postgis.st_astext(found) ~* 'nan|inf' THEN
        RAISE EXCEPTION 'a place has longitudes from -180 to 180 and latitudes from -90 to 90'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Longitude comes first. ST_SetSRID says what the numbers are.';
    END IF;
    IF NOT postgis.st_isvalid(found) THEN
        IF postgis.st_astext(found) ~* 'nan|inf' THEN  -- behind others they do not show in a box
            RAISE EXCEPTION 'the place has a coordinate that is no number' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        found := postgis.st_makevalid(found);
    END IF;
    RETURN found;
END $f$;
COMMENT ON FUNCTION hub.located(postgis.geometry) IS 'A place in WGS 84, as one of the types of GeoJSON, and valid. Fails for one that is nowhere on earth.';
REVOKE ALL ON FUNCTION hub.located(postgis.geometry) FROM PUBLIC;

CREATE FUNCTION hub.put_place(event bigint, place postgis.geometry) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
    found postgis.geometry;
BEGIN
    IF put_place.place IS NULL THEN
        RETURN event;
    END IF;
    found := hub.located(put_place.place);
    INSERT INTO hub.places (xid, id, place, published)
    SELECT e.xid, e.id, found,
           CASE WHEN postgis.st_asewkb(found) <> postgis.st_asewkb(put_place.place) THEN put_place.place END
      FROM hub.events AS e WHERE e.xid = pg_current_xact_id() AND e.id = put_place.event
    ON CONFLICT DO NOTHING;
    RETURN event;
END $f$;
COMMENT ON FUNCTION hub.put_place(bigint, postgis.geometry) IS 'Gives an event of this very transaction its place, if it has none; returns the event.';

-- The channel is a varchar, since of two functions that differ in nothing but parameters with defaults Postgres chooses
-- none: so a call without a place is the other's, as before. Whoever may call that one may call this.
CREATE FUNCTION hub.publish(channel varchar, payload jsonb, tags text[] DEFAULT '{}', place postgis.geometry DEFAULT NULL)
RETURNS bigint LANGUAGE sql AS $f$
    SELECT hub.put_place(hub.publish(publish.channel::pg_catalog.text, publish.payload, publish.tags), publish.place)
$f$;
COMMENT ON FUNCTION hub.publish(varchar, jsonb, text[], postgis.geometry) IS 'Publishes an event that has a place.';

CREATE OR REPLACE FUNCTION hub.publish_placed(channel text, payloads jsonb[], spots bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
    WITH made AS (
        INSERT INTO hub.events (channel, payload)
        SELECT publish_placed.channel, p.payload FROM unnest(payloads) WITH ORDINALITY AS p(payload, at) ORDER BY p.at
        RETURNING xid, id
    ), placed AS (
        SELECT m.xid, m.id, postgis.st_geomfromewkb(spots[m.at]) AS spot
          FROM (SELECT xid, id, row_number() OVER (ORDER BY id) AS at FROM made) AS m WHERE spots[m.at] IS NOT NULL
    )
    INSERT INTO hub.places (xid, id, place, published)
    SELECT p.xid, p.id, l.place, CASE WHEN postgis.st_asewkb(l.place) <> postgis.st_asewkb(p.spot) IS NOT FALSE THEN p.spot END
      FROM placed AS p CROSS JOIN LATERAL hub.located_if_possible(p.spot) AS l(place);
END $f$;
COMMENT ON FUNCTION hub.publish_placed(text, jsonb[], bytea[]) IS 'Publishes what has changed, with the places, as EWKB, of those that have one.';
REVOKE ALL ON FUNCTION hub.publish_placed(text, jsonb[], bytea[]) FROM PUBLIC;

CREATE FUNCTION hub.located_if_possible(place postgis.geometry) RETURNS postgis.geometry
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
    RETURN hub.located(place);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $f$;
COMMENT ON FUNCTION hub.located_if_possible(postgis.geometry) IS 'The same, or null: what somebody does to a table must not fail because of the hub.';
REVOKE ALL ON FUNCTION hub.located_if_possible(postgis.geometry) FROM PUBLIC;

CREATE OR REPLACE FUNCTION hub.insert_placed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
    made bigint;
BEGIN
    INSERT INTO hub.events (channel, payload, tags) VALUES (NEW.channel, NEW.payload, COALESCE(NEW.tags, '{}'))
    RETURNING id INTO made;
    PERFORM hub.put_place(made, NEW.place);
    RETURN NEW;
END $f$;
COMMENT ON FUNCTION hub.insert_placed() IS 'Publishes what is inserted into hub.placed, with the rights of who inserts it.';
CREATE TRIGGER publish INSTEAD OF INSERT ON hub.placed FOR EACH ROW EXECUTE FUNCTION hub.insert_placed();
    $sql$, 'postgis.', home || '.');
END $$;
COMMENT ON FUNCTION hub.make_places(text) IS 'Makes the table of places, and what uses it, for a PostGIS in this schema.';
REVOKE ALL ON FUNCTION hub.make_places(text) FROM PUBLIC;

CREATE FUNCTION hub.home_of_places() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT quote_ident(n.nspname) FROM pg_attribute AS a
      JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_namespace AS n ON n.oid = t.typnamespace
     WHERE a.attrelid = to_regclass('hub.places') AND a.attname = 'place' AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION hub.home_of_places() IS 'The schema of the PostGIS that the table of places is made for; null if there is none.';

CREATE FUNCTION hub.enable_places() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home text := (SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
                   WHERE e.extname = 'postgis');
BEGIN
    IF home IS NOT DISTINCT FROM (SELECT places FROM hub.log) AND home IS NOT DISTINCT FROM hub.home_of_places() THEN
        RETURN home;
    END IF;
    PERFORM FROM hub.log FOR UPDATE;  -- another hub may be at it
    IF home IS NULL THEN
        DROP TABLE IF EXISTS hub.places CASCADE;  -- of which DROP EXTENSION has left an empty shell
    ELSIF home IS DISTINCT FROM hub.home_of_places() THEN
        PERFORM hub.make_places(home);
    END IF;
    UPDATE hub.log SET places = home;
    PERFORM pg_notify('hub_bell', '');  -- hubs that sleep are to know it
    RETURN home;
END $$;
COMMENT ON FUNCTION hub.enable_places() IS 'Lets events have places if PostGIS is there; returns its schema, or null. Hubs call it when they connect, and each minute.';
REVOKE ALL ON FUNCTION hub.enable_places() FROM PUBLIC;

-- Watched tables: a column of theirs may be the place of their rows.

ALTER TABLE hub.watches ADD COLUMN place text, ADD COLUMN place_number smallint;
COMMENT ON COLUMN hub.watches.place IS 'The name of the column that is the place of a row; null if none is.';
COMMENT ON COLUMN hub.watches.place_number IS 'Its number, as numbers are of columns.';

CREATE OR REPLACE VIEW hub.shapes AS
SELECT w.relation, w.channel, w.old, w.stamp, format('%I.%I', n.nspname, c.relname) AS "table", c.relnatts AS width, a.*
  FROM hub.watches AS w
  JOIN pg_class AS c ON c.oid = w.relation
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(a.name ORDER BY a.number) FILTER (WHERE a.chosen OR a.place IS NOT NULL), '{}') AS columns,
           COALESCE(array_agg(a.name) FILTER (WHERE NOT a.chosen AND a.place IS NULL), '{}') AS hidden,
           COALESCE(array_agg(a.name ORDER BY a.place) FILTER (WHERE a.place IS NOT NULL), '{}') AS key,
           COALESCE(array_agg(a.name) FILTER (WHERE a.chosen AND a.place IS NULL), '{}') AS rest,
           COALESCE(bool_and(a.plain), true) AS plain,
           max(a.name) FILTER (WHERE a.is_place) AS place
      FROM (SELECT a.attname::text AS name, a.attnum AS number,
                   array_position((i.indkey::smallint[])[0:i.indnkeyatts - 1], a.attnum) AS place,
                   w.columns IS NULL OR CASE WHEN w.relation = w.numbered_for THEN a.attnum = ANY (w.numbers)
                                             ELSE a.attname = ANY (w.columns) END AS chosen,
                   a.atttypid < 16384 AND a.attgenerated <> 'v' AS plain,
                   CASE WHEN w.relation = w.numbered_for THEN a.attnum = w.place_number ELSE a.attname = w.place END AS is_place
              FROM pg_attribute AS a
              LEFT JOIN pg_index AS i ON i.indrelid = w.relation AND i.indisprimary AND i.indimmediate AND i.indisvalid
             WHERE a.attrelid = w.relation AND a.attnum > 0 AND NOT a.attisdropped) AS a) AS a;
COMMENT ON COLUMN hub.shapes.place IS 'The column that is the place of a row; null if none is.';

CREATE OR REPLACE VIEW hub.watched AS
SELECT s.relation, s."table", s.channel, s.columns, s.old, s.key, hub.amiss(w) AS amiss, s.place
  FROM hub.shapes AS s JOIN hub.watches AS w ON w.relation = s.relation;
COMMENT ON COLUMN hub.watched.place IS 'The column that is the place of a row; null if none is.';

-- As before, but that it looks for the places of rows as well: all that has to do with home, spots, kind and at.
CREATE OR REPLACE FUNCTION hub.publish_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C'
SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    shape     hub.shapes;
    cut       text[];            -- what a delete does not tell of the old row
    sides     bigint[];          -- of an update: how many old rows, how many new ones
    types     oid[];
    old_types oid[];
    list      text;
    old_docs  jsonb[];           -- null where to_jsonb does
    new_docs  jsonb[];
    home      text;              -- the schema of PostGIS, where the table has a column for the place
    old_spots bytea[];           -- the places of the rows, as EWKB: this function has to do without PostGIS
    new_spots bytea[];
    spots     bytea[] := '{}';   -- those of payloads
    kind      integer;
    at        bigint := 0;
    changes   refcursor;
    payload   jsonb;
    payloads  jsonb[] := '{}';
    bytes     bigint := 0;
    length    integer;
    depth     integer := pg_trigger_depth();
    began     text := EXTRACT(epoch FROM statement_timestamp())::text;
    notes     text := current_setting('hub.publishing', true);
    own       text;
    told      text[];
    again     boolean;
    deeper    boolean := false;
    compared  boolean := false;
    differs   boolean := false;
    refused   text;              -- why nothing but a reload will do
BEGIN
    IF TG_LEVEL <> 'STATEMENT' OR TG_WHEN <> 'AFTER' OR TG_OP = 'TRUNCATE' THEN
        RETURN NULL;
    END IF;
    -- Names that are no transition tables, since somebody has made a trigger without them, are looked up in pg_temp.
    -- A view there would run with the rights of the hub's owner.
    IF to_regclass('pg_temp.hub_new') IS NOT NULL OR to_regclass('pg_temp.hub_old') IS NOT NULL THEN
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            refused := 'a temporary table is called hub_new or hub_old';  -- an old snapshot shows old triggers
        ELSIF hub.has_foreign_triggers(TG_RELID) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF refused IS NULL THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM FROM hub_new LIMIT 1;
        ELSE
            PERFORM FROM hub_old LIMIT 1;
        END IF;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT s.* INTO shape FROM hub.shapes AS s
     WHERE s.relation = COALESCE(
               (SELECT w.relation FROM pg_partition_ancestors(TG_RELID) WITH ORDINALITY AS above(oid, level)
                  JOIN hub.watches AS w ON w.relation = above.oid ORDER BY above.level DESC LIMIT 1), TG_RELID);
    IF NOT FOUND THEN
        -- A snapshot that is older than the watch does not show it, and its changes would be missed for good.
        IF TG_NARGS = 2 AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            INSERT INTO hub.events (channel, payload) VALUES (TG_ARGV[0], hub.reload(
                COALESCE(pg_partition_root(TG_RELID), TG_RELID::regclass)::text,
                'A transaction older than the watch changed rows.'));
        END IF;
        RETURN NULL;
    END IF;
    -- A snapshot older than a change of the watch shows what it was; the trigger tells what it is.
    IF shape.stamp <> TG_ARGV[1] AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        INSERT INTO hub.events (channel, payload) VALUES (
            TG_ARGV[0], hub.reload(shape."table", 'A transaction older than a change of the watch changed rows.'));
        RETURN NULL;
    END IF;
    cut := CASE WHEN shape.old OR shape.key = '{}' THEN '{}' ELSE shape.rest END;

    -- Within one command what happens first may be told last: that of a trigger, of a function, of WITH, of a cascade.
    -- So each table is noted that the command has told of, and how deep; what comes then is told if the rows still are so.
    own := shape.relation::oid || '/' || depth;
    again := notes = began || ' ' || own;
    IF again IS NOT TRUE THEN
        told := string_to_array(notes, ' ');
        IF told[1] IS DISTINCT FROM began THEN
            told := ARRAY[began];
        END IF;
        SELECT count(*) > 0, bool_or(split_part(note, '/', 2)::integer > depth) INTO again, deeper
          FROM unnest(told[2:]) AS n(note) WHERE split_part(note, '/', 1) = shape.relation::oid::text;
        PERFORM set_config('hub.publishing', concat_ws(' ', began, own, (
            SELECT string_agg(DISTINCT split_part(note, '/', 1) || '/' || LEAST(split_part(note, '/', 2)::integer, depth), ' ')
              FROM unnest(told[2:]) AS n(note) WHERE split_part(note, '/', 1) <> shape.relation::oid::text)), true);
    END IF;
    IF again THEN
        IF shape.key <> '{}' AND hub.is_comparable(shape.relation) THEN
            compared := true;
        ELSIF deeper THEN
            refused := 'a trigger on the table has changed it meanwhile';
        END IF;
    END IF;

    BEGIN  -- reads only, unless the statement is large: a subtransaction that writes takes an xid
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION '%', refused;
        END IF;
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            -- An old snapshot may show other columns than the rows have: what is hidden would go out by its new name.
            SELECT string_agg(format('pg_typeof(t.%I)', a.attname), ', ' ORDER BY a.attnum),
                   array_agg(a.atttypid ORDER BY a.attnum)
              INTO list, old_types
              FROM pg_attribute AS a WHERE a.attrelid = shape.relation AND a.attnum > 0 AND NOT a.attisdropped;
            EXECUTE format('SELECT ARRAY[%s]::oid[] FROM %s AS t LIMIT 1', list,
                           CASE TG_OP WHEN 'DELETE' THEN 'hub_old' ELSE 'hub_new' END) INTO types;
            IF types <> old_types
               OR has_column_privilege(shape.relation, (shape.width + 1)::smallint, 'SELECT') IS NOT NULL THEN
                RAISE EXCEPTION 'its columns have changed since the transaction took its snapshot';
            END IF;
        END IF;
        list := CASE WHEN NOT shape.plain THEN hub.expressions(shape.relation, shape.columns) END;
        IF list IS NOT NULL AND TG_OP <> 'INSERT' THEN
            EXECUTE format('SELECT array_agg(to_jsonb(r.*)) FROM (SELECT %s FROM hub_old AS t) AS r', list) INTO old_docs;
        END IF;
        IF list IS NOT NULL AND TG_OP <> 'DELETE' THEN
            EXECUTE format('SELECT array_agg(to_jsonb(r.*)) FROM (SELECT %s FROM hub_new AS t) AS r', list) INTO new_docs;
        END IF;

        -- Only of that very type: another one's function might be somebody's own.
        IF shape.place IS NOT NULL THEN
            SELECT hub.home_of_places() INTO home FROM pg_attribute AS a
             WHERE a.attrelid = shape.relation AND a.attname = shape.place AND a.attgenerated <> 'v'
               AND a.atttypid = to_regtype(hub.home_of_places() || '.geometry');
        END IF;
        IF home IS NOT NULL AND TG_OP <> 'INSERT' THEN
            EXECUTE format('SELECT array_agg(%s.st_asewkb(t.%I)) FROM hub_old AS t', home, shape.place) INTO old_spots;
        END IF;
        IF home IS NOT NULL AND TG_OP <> 'DELETE' THEN
            EXECUTE format('SELECT array_agg(%s.st_asewkb(t.%I)) FROM hub_new AS t', home, shape.place) INTO new_spots;
        END IF;

        IF TG_OP = 'INSERT' THEN
            OPEN changes NO SCROLL FOR
                SELECT hub.change('insert', shape."table", n.doc)
                  FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_new AS t WHERE list IS NULL
                        UNION ALL SELECT * FROM unnest(new_docs)) AS n(doc);
        ELSIF TG_OP = 'DELETE' THEN
            OPEN changes NO SCROLL FOR
                SELECT hub.change('delete', shape."table", NULL, o.doc - cut)
                  FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_old AS t WHERE list IS NULL
                        UNION ALL SELECT * FROM unnest(old_docs)) AS o(doc);
        ELSE
            sides := ARRAY[(SELECT count(*) FROM hub_old), (SELECT count(*) FROM hub_new)];
            -- Keys can be changed by cascades, and those come one after the other: a key may be left, and taken, and
            -- left again. Then it would be wrong to tell all that goes before all that comes.
            IF sides[1] > 1
               AND EXISTS (SELECT FROM pg_constraint AS f
                             JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)
                            WHERE f.conrelid = shape.relation AND f.contype = 'f' AND f.confupdtype IN ('c', 'n', 'd')
                              AND a.attname = ANY (shape.key))
               AND EXISTS (SELECT FROM (SELECT row_number() OVER (), s.doc
                                          FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_old AS t WHERE list IS NULL
                                                UNION ALL SELECT * FROM unnest(old_docs)) AS s(doc)) AS o(place, doc)
                             JOIN (SELECT row_number() OVER (), s.doc
                                     FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_new AS t WHERE list IS NULL
                                           UNION ALL SELECT * FROM unnest(new_docs)) AS s(doc)) AS n(place, doc)
                               ON o.doc = n.doc AND o.place > n.place) THEN
                RAISE EXCEPTION 'cascades have changed the key of one row more than once';
            END IF;
            -- Postgres collects the old and the new row of an update at one time, so they stand at the same place of
            -- both tables. If new ones are missing (a trigger swallowed a row on its way into another partition), no
            -- place can be trusted; and where the keys differ, it is another row for whoever reads.
            OPEN changes NO SCROLL FOR
                SELECT CASE event.kind
                       WHEN 1 THEN hub.change('delete', shape."table", NULL, pair.was - cut)
                       WHEN 2 THEN hub.change('insert', shape."table", pair.doc)
                       ELSE hub.change('update', shape."table", pair.doc,
                                       CASE WHEN shape.old THEN pair.was END, event.names)
                       END, event.kind, pair.place
                  FROM (SELECT abs(COALESCE(n.place, o.place)) AS place, o.doc AS was, n.doc,
                               n.doc IS NULL OR o.doc IS NULL OR o.doc - shape.rest <> n.doc - shape.rest AS apart
                          FROM (SELECT row_number() OVER () * CASE WHEN sides[1] = sides[2] THEN 1 ELSE -1 END, s.doc
                                  FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_old AS t WHERE list IS NULL
                                        UNION ALL SELECT * FROM unnest(old_docs)) AS s(doc)) AS o(place, doc)
                          FULL JOIN
                               (SELECT row_number() OVER (), s.doc
                                  FROM (SELECT to_jsonb(t.*) - shape.hidden FROM hub_new AS t WHERE list IS NULL
                                        UNION ALL SELECT * FROM unnest(new_docs)) AS s(doc)) AS n(place, doc)
                            ON o.place = n.place
                        OFFSET 0) AS pair  -- which keeps the expressions above from being computed again below
                 CROSS JOIN LATERAL (
                        SELECT 1, NULL::text[] WHERE pair.apart AND pair.was IS NOT NULL
                        UNION ALL
                        SELECT 2, NULL WHERE pair.apart AND pair.doc IS NOT NULL
                        UNION ALL
                        SELECT 3, c.names
                          FROM (SELECT ARRAY(SELECT name FROM unnest(shape.columns) AS name
                                              WHERE (pair.was -> name)::text <> (pair.doc -> name)::text)) AS c(names)
                         WHERE NOT pair.apart AND c.names <> '{}') AS event(kind, names)
                 ORDER BY event.kind = 1 DESC, pair.place;
        END IF;

        LOOP
            IF TG_OP = 'UPDATE' THEN
                FETCH changes INTO payload, kind, at;
            ELSE
                FETCH changes INTO payload;
                at := at + 1;
            END IF;
            EXIT WHEN NOT FOUND;
            length := octet_length(payload::text);
            IF length > 786432 THEN
                payload := payload || jsonb_build_object('stub', true,
                    'new', CASE jsonb_typeof(payload -> 'new') WHEN 'object' THEN (payload -> 'new') - shape.rest END,
                    'old', CASE jsonb_typeof(payload -> 'old') WHEN 'object' THEN (payload -> 'old') - shape.rest END);
                IF octet_length(payload::text) > 786432 THEN
                    payload := payload || '{"changed": null}';
                END IF;
                IF octet_length(payload::text) > 786432 THEN
                    RAISE EXCEPTION 'a key is too large for an event';
                END IF;
            END IF;
            payloads := array_append(payloads, payload);
            IF home IS NOT NULL THEN
                spots := array_append(spots, CASE WHEN TG_OP = 'DELETE' OR kind = 1 THEN old_spots[at] ELSE new_spots[at] END);
            END IF;
            bytes := bytes + length;
            IF bytes > 4000000 OR cardinality(payloads) >= 1000 THEN
                differs := compared AND hub.are_otherwise(shape, payloads);
                EXIT WHEN differs;
                IF home IS NULL THEN
                    INSERT INTO hub.events (channel, payload)
                    SELECT shape.channel, p.payload FROM unnest(payloads) AS p(payload);
                ELSE
                    PERFORM hub.publish_placed(shape.channel, payloads, spots);
                END IF;
                payloads := '{}';
                spots := '{}';
                bytes := 0;
            END IF;
        END LOOP;
        CLOSE changes;
        IF differs OR compared AND payloads <> '{}' AND hub.are_otherwise(shape, payloads) THEN
            RAISE EXCEPTION '%', CASE WHEN deeper THEN 'a trigger on the table has changed it meanwhile'
                                      ELSE 'its rows are others by now' END;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        payloads := ARRAY[hub.reload(shape."table", format('A change cannot be told: %s.', SQLERRM))];
        home := NULL;
    END;
    IF home IS NULL THEN
        INSERT INTO hub.events (channel, payload) SELECT shape.channel, p.payload FROM unnest(payloads) AS p(payload);
    ELSE
        PERFORM hub.publish_placed(shape.channel, payloads, spots);
    END IF;
    RETURN NULL;
END $$;

-- A parameter more is another function: who might call the one before may call this one.
ALTER FUNCTION hub.watch(regclass, text, text[], boolean) RENAME TO watch_before;
CREATE FUNCTION hub.watch(
    relation regclass, channel text DEFAULT NULL, columns text[] DEFAULT NULL, old boolean DEFAULT false, place text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    objection text := hub.objection(watch.relation);
    missing   text;
    numbers   smallint[];
    number    smallint;
    stamp     text;
BEGIN
    IF objection IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be watched: %', watch.relation, lower(left(objection, 1)) || substr(objection, 2)
            USING ERRCODE = 'wrong_object_type';
    END IF;
    IF NOT COALESCE((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = watch.relation), false) THEN
        RAISE EXCEPTION 'must be owner of %', COALESCE(watch.relation::text, 'a table, not NULL')
            USING ERRCODE = 'insufficient_privilege', HINT = 'hub.watch publishes what the table''s owner wants published.';
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', watch.relation);
    SELECT name INTO missing FROM unnest(watch.columns) AS name
     WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = watch.relation AND a.attname = name
                                                       AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION '% has no column %', watch.relation, COALESCE(quote_ident(missing), 'NULL')
            USING ERRCODE = 'undefined_column';
    END IF;
    IF watch.columns IS NOT NULL THEN
        numbers := ARRAY(SELECT a.attnum FROM unnest(watch.columns) WITH ORDINALITY AS chosen(name, place)
                           JOIN pg_attribute AS a ON a.attrelid = watch.relation AND a.attname = chosen.name
                          ORDER BY chosen.place);
    END IF;
    IF watch.place IS NOT NULL THEN
        IF hub.home_of_places() IS NULL THEN
            RAISE EXCEPTION 'without PostGIS there are no places' USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'CREATE EXTENSION postgis; a hub that runs sees it within a minute, or: SELECT hub.enable_places()';
        END IF;
        SELECT a.attnum INTO number FROM pg_attribute AS a
         WHERE a.attrelid = watch.relation AND a.attname = watch.place AND a.attnum > 0 AND NOT a.attisdropped
           AND a.atttypid = to_regtype(hub.home_of_places() || '.geometry') AND a.attgenerated <> 'v';
        IF NOT FOUND THEN
            RAISE EXCEPTION '% has no column % that is a geometry', watch.relation, quote_ident(watch.place)
                USING ERRCODE = 'undefined_column';
        END IF;
    END IF;
    IF watch.channel IS NULL THEN
        SELECT CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END INTO STRICT channel
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = watch.relation;
    END IF;
    stamp := hub.stamp(watch.relation, watch.channel, COALESCE(watch.old, false), numbers) || COALESCE('@' || number, '');
    BEGIN
        INSERT INTO hub.watches AS w (relation, name, channel, old, columns, numbers, numbered_for, stamp, shape, place,
                                     place_number)
        VALUES (watch.relation, hub.name_of(watch.relation), watch.channel, COALESCE(watch.old, false), watch.columns, numbers,
                watch.relation, stamp, hub.shape(watch.relation, numbers), watch.place, number)
        ON CONFLICT ON CONSTRAINT watches_pkey DO UPDATE
        SET name = EXCLUDED.name, channel = EXCLUDED.channel, old = EXCLUDED.old, columns = EXCLUDED.columns, numbers = EXCLUDED.numbers,
            numbered_for = EXCLUDED.numbered_for, stamp = EXCLUDED.stamp, shape = EXCLUDED.shape, failure = NULL,
            place = EXCLUDED.place, place_number = EXCLUDED.place_number,
            repaired_at = CASE WHEN EXISTS (SELECT FROM hub.tables_of(w.relation) AS t WHERE NOT hub.is_armed(t, w.channel, w.stamp))
                               THEN clock_timestamp() ELSE w.repaired_at END;
    EXCEPTION WHEN check_violation THEN
        RAISE EXCEPTION '% is no legal name of a channel', quote_literal(watch.channel) USING ERRCODE = 'check_violation',
            HINT = 'Name one: hub.watch(…, channel => …), 1 to 63 bytes, no control characters, no *, not $… or hub_….';
    END;
    PERFORM hub.arm(watch.relation, watch.channel, stamp);
    RETURN watch.channel;
END $$;
COMMENT ON FUNCTION hub.watch(regclass, text, text[], boolean, text) IS 'Publishes the changes of a table from now on; returns the channel. Called again, it changes how.';
REVOKE ALL ON FUNCTION hub.watch(regclass, text, text[], boolean, text) FROM PUBLIC;
DO $$
DECLARE
    heir text;
BEGIN
    FOR heir IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
                  FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
                 WHERE p.oid = 'hub.watch_before'::regproc AND a.grantee <> p.proowner LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION hub.watch TO %s', heir);
    END LOOP;
END $$;
DROP FUNCTION hub.watch_before;

CREATE OR REPLACE FUNCTION hub.is_due(watch hub.watches) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT watch.relation::oid <> watch.numbered_for
        OR watch.name <> hub.name_of(watch.relation)
        OR watch.shape <> hub.shape(watch.relation, watch.numbers)
        OR watch.failure IS NOT NULL
        OR watch.stamp <> hub.stamp(watch.relation, watch.channel, watch.old, watch.numbers) || COALESCE('@' || watch.place_number, '')
        OR EXISTS (SELECT FROM hub.tables_of(watch.relation) AS t WHERE NOT hub.is_armed(t, watch.channel, watch.stamp))
$$;

CREATE OR REPLACE FUNCTION hub.rewatch() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    watch  hub.watches;
    stray  regclass;
    armed  integer;
    done   integer := 0;
BEGIN
    DELETE FROM hub.watches AS w WHERE w.relation IN (
        SELECT gone.relation FROM hub.watches AS gone
         WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = gone.relation) FOR UPDATE SKIP LOCKED);
    FOR watch IN SELECT * FROM hub.watches AS w WHERE hub.new_objection(w) IS NOT NULL FOR UPDATE SKIP LOCKED LOOP
        UPDATE hub.watches AS w SET failure = hub.new_objection(watch) WHERE w.relation = watch.relation;
        done := done + 1;
    END LOOP;
    FOR watch IN SELECT * FROM hub.watches AS w
                  WHERE hub.objection(w.relation) IS NULL AND hub.is_due(w) FOR UPDATE SKIP LOCKED LOOP
        BEGIN
            IF watch.columns IS NOT NULL THEN
                SELECT array_agg(a.attname ORDER BY a.attnum), array_agg(a.attnum ORDER BY a.attnum)
                  INTO watch.columns, watch.numbers
                  FROM pg_attribute AS a
                 WHERE a.attrelid = watch.relation AND a.attnum > 0 AND NOT a.attisdropped
                   AND CASE WHEN watch.relation = watch.numbered_for THEN a.attnum = ANY (watch.numbers)
                            ELSE a.attname = ANY (watch.columns) END;
                watch.columns := COALESCE(watch.columns, '{}');
                watch.numbers := COALESCE(watch.numbers, '{}');
            END IF;
            IF watch.place IS NOT NULL THEN
                SELECT max(a.attname), max(a.attnum) INTO watch.place, watch.place_number FROM pg_attribute AS a
                 WHERE a.attrelid = watch.relation AND a.attnum > 0 AND NOT a.attisdropped
                   AND CASE WHEN watch.relation = watch.numbered_for THEN a.attnum = watch.place_number
                            ELSE a.attname = watch.place END;
            END IF;
            watch.stamp := hub.stamp(watch.relation, watch.channel, watch.old, watch.numbers)
                           || COALESCE('@' || watch.place_number, '');
            armed := hub.arm(watch.relation, watch.channel, watch.stamp);
            UPDATE hub.watches AS w
               SET name = hub.name_of(watch.relation), columns = watch.columns, numbers = watch.numbers,
                   place = watch.place, place_number = watch.place_number,
                   numbered_for = watch.relation, stamp = watch.stamp, failure = NULL,
                   shape = hub.shape(watch.relation, watch.numbers),
                   repaired_at = CASE WHEN armed > 0 OR w.failure IS NOT NULL THEN clock_timestamp() ELSE w.repaired_at END
             WHERE w.relation = watch.relation;
            done := done + 1;
        EXCEPTION WHEN OTHERS THEN
            UPDATE hub.watches AS w SET failure = SQLERRM WHERE w.relation = watch.relation;
        END;
    END LOOP;
    FOR stray IN SELECT * FROM hub.strays() LOOP
        BEGIN
            PERFORM hub.disarm(stray);
            done := done + 1;
        EXCEPTION WHEN OTHERS THEN
            RAISE LOG 'pghub: the triggers on % cannot be dropped: %', stray, SQLERRM;
        END;
    END LOOP;
    RETURN done;
END $$;
