-- Tables whose changes are events: hub.watch puts statement triggers on a table, and on each of its partitions.
--
-- What a role may watch is what it owns: hub.watch and hub.unwatch run with their caller's rights, and so do the
-- functions that they need, which are everybody's. The triggers run with the owner's, wherever rows change.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE TABLE hub.watches (
    relation     regclass    PRIMARY KEY,
    name         text        NOT NULL,
    channel      text        COLLATE "C" NOT NULL,
    old          boolean     NOT NULL,
    columns      text[],
    numbers      smallint[],
    numbered_for oid         NOT NULL,
    stamp        text        NOT NULL,
    shape        text        NOT NULL,
    repaired_at  timestamptz,
    failure      text,
    CONSTRAINT legal_channel CHECK (
        octet_length(channel) BETWEEN 1 AND 63
        AND channel !~ '[\x01-\x1f\x7f-\x9f*]'
        AND channel !~ '^(\$|hub_)'
    )
);
COMMENT ON TABLE hub.watches IS 'What hub.watch was told, a row for each table. Everybody sees and changes those of their own tables only.';
COMMENT ON COLUMN hub.watches.relation IS 'The table; the parent, if it is partitioned.';
COMMENT ON COLUMN hub.watches.name IS 'Its name, with the schema, when it was last looked at: by this its readers know it.';
COMMENT ON COLUMN hub.watches.channel IS 'Where its changes are published.';
COMMENT ON COLUMN hub.watches.old IS 'Whether updates and deletes tell the whole row as it was.';
COMMENT ON COLUMN hub.watches.columns IS 'The names of the columns that are published; null for all.';
COMMENT ON COLUMN hub.watches.numbers IS 'Their numbers, which outlive a renaming, where the names outlive a dump.';
COMMENT ON COLUMN hub.watches.numbered_for IS 'The oid that the numbers are of: after a restore another one than relation''s.';
COMMENT ON COLUMN hub.watches.stamp IS 'A checksum of how it is published. Triggers have it too, and old snapshots show triggers as they are now.';
COMMENT ON COLUMN hub.watches.shape IS 'A checksum of columns, key and partitions as they were when the triggers were last put right.';
COMMENT ON COLUMN hub.watches.repaired_at IS 'When triggers were last found missing, and put back.';
COMMENT ON COLUMN hub.watches.failure IS 'Why hub.rewatch could not put it right the last time; or what stands against it, once readers know.';

ALTER TABLE hub.watches ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners ON hub.watches USING (
    (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = relation)
);

-- What is published of each watched table, from the catalogs as they are now: whatever was renamed keeps working.
CREATE VIEW hub.shapes AS
SELECT w.relation, w.channel, w.old, w.stamp, format('%I.%I', n.nspname, c.relname) AS "table", c.relnatts AS width, a.*
  FROM hub.watches AS w
  JOIN pg_class AS c ON c.oid = w.relation
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(a.name ORDER BY a.number) FILTER (WHERE a.chosen OR a.place IS NOT NULL), '{}') AS columns,
           COALESCE(array_agg(a.name) FILTER (WHERE NOT a.chosen AND a.place IS NULL), '{}') AS hidden,
           COALESCE(array_agg(a.name ORDER BY a.place) FILTER (WHERE a.place IS NOT NULL), '{}') AS key,
           COALESCE(array_agg(a.name) FILTER (WHERE a.chosen AND a.place IS NULL), '{}') AS rest,
           COALESCE(bool_and(a.plain), true) AS plain
      FROM (SELECT a.attname::text AS name, a.attnum AS number,
                   array_position((i.indkey::smallint[])[0:i.indnkeyatts - 1], a.attnum) AS place,
                   w.columns IS NULL OR CASE WHEN w.relation = w.numbered_for THEN a.attnum = ANY (w.numbers)
                                             ELSE a.attname = ANY (w.columns) END AS chosen,
                   a.atttypid < 16384 AND a.attgenerated <> 'v' AS plain
              FROM pg_attribute AS a
              LEFT JOIN pg_index AS i ON i.indrelid = w.relation AND i.indisprimary AND i.indimmediate AND i.indisvalid
             WHERE a.attrelid = w.relation AND a.attnum > 0 AND NOT a.attisdropped) AS a) AS a;
COMMENT ON VIEW hub.shapes IS 'What the triggers go by.';
COMMENT ON COLUMN hub.shapes.relation IS 'The watched table.';
COMMENT ON COLUMN hub.shapes.channel IS 'Where its changes are published.';
COMMENT ON COLUMN hub.shapes.old IS 'Whether updates and deletes tell the whole row as it was.';
COMMENT ON COLUMN hub.shapes.stamp IS 'What its triggers are stamped with.';
COMMENT ON COLUMN hub.shapes."table" IS 'Its name, with the schema.';
COMMENT ON COLUMN hub.shapes.width IS 'The greatest number that a column of it has had.';
COMMENT ON COLUMN hub.shapes.columns IS 'The columns that are published, in their order.';
COMMENT ON COLUMN hub.shapes.hidden IS 'Those that are not.';
COMMENT ON COLUMN hub.shapes.key IS 'The columns of the primary key, in its order; none if there is no key or it is deferrable.';
COMMENT ON COLUMN hub.shapes.rest IS 'The columns that are published and not of the key.';
COMMENT ON COLUMN hub.shapes.plain IS 'No column is of a type that somebody has made, or virtual: to_jsonb will do.';

CREATE FUNCTION hub.name_of(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = name_of.relation
$$;
COMMENT ON FUNCTION hub.name_of(regclass) IS 'The name of a table as events have it.';

CREATE FUNCTION hub.tables_of(relation regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tables_of.relation UNION SELECT relid FROM pg_partition_tree(tables_of.relation)
$$;
COMMENT ON FUNCTION hub.tables_of(regclass) IS 'A table with all its partitions, of all levels.';

CREATE FUNCTION hub.watched_by(relation regclass) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.relation FROM hub.watches AS w
      LEFT JOIN pg_partition_ancestors(watched_by.relation) WITH ORDINALITY AS above(oid, level) ON w.relation = above.oid
     WHERE w.relation = watched_by.relation OR above.oid IS NOT NULL
     ORDER BY above.level DESC NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION hub.watched_by(regclass) IS 'The watched table that this one is, or is a partition of; the topmost, if it is several. Null: none.';

CREATE FUNCTION hub.stamp(relation regclass, channel text, old boolean, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5(format('%s %s %s %s', stamp.channel, stamp.old, stamp.numbers, (
        SELECT i.indkey FROM pg_index AS i
         WHERE i.indrelid = stamp.relation AND i.indisprimary AND i.indimmediate AND i.indisvalid)))
$$;
COMMENT ON FUNCTION hub.stamp(regclass, text, boolean, smallint[]) IS 'A checksum of how a table is published, and by which key.';

CREATE FUNCTION hub.parts_of(type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found pg_type;
BEGIN
    SELECT * INTO found FROM pg_type AS t WHERE t.oid = parts_of.type AND t.oid >= 16384;
    RETURN CASE
        WHEN found.typtype = 'd' THEN hub.parts_of(found.typbasetype)
        WHEN found.typlen = -1 AND found.typelem <> 0 THEN hub.parts_of(found.typelem)
        WHEN found.typtype = 'e' THEN (SELECT string_agg(e.enumlabel, ',' ORDER BY e.oid) FROM pg_enum AS e
                                        WHERE e.enumtypid = found.oid)
        WHEN found.typtype = 'c' THEN (SELECT string_agg(format('%s %s %s', a.attname, a.atttypid, hub.parts_of(a.atttypid)),
                                                         ',' ORDER BY a.attnum)
                                         FROM pg_attribute AS a
                                        WHERE a.attrelid = found.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END;
END $$;
COMMENT ON FUNCTION hub.parts_of(oid) IS 'How values of a type are written, as far as ALTER TYPE can change it: labels, attributes.';

-- A partition that was detached and attached again, perhaps with other rows, has another row in pg_inherits.
CREATE FUNCTION hub.shape(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5(concat_ws(';',
        (SELECT string_agg(format('%s %s %s %s %s %s %s', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated,
                                  CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
                                  hub.parts_of(a.atttypid)), ',' ORDER BY a.attnum)
           FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE a.attrelid = shape.relation AND a.attnum > 0 AND NOT a.attisdropped
            AND (shape.numbers IS NULL OR a.attnum = ANY (shape.numbers) OR a.attnum = ANY (i.indkey))),
        i.indkey,
        (SELECT string_agg(format('%s %s', p.relid::oid, h.xmin), ',' ORDER BY p.relid::oid)
           FROM pg_partition_tree(shape.relation) AS p
           LEFT JOIN pg_inherits AS h ON h.inhrelid = p.relid AND p.relid <> shape.relation)))
      FROM (SELECT) AS one
      LEFT JOIN pg_index AS i ON i.indrelid = shape.relation AND i.indisprimary AND i.indimmediate AND i.indisvalid
$$;
COMMENT ON FUNCTION hub.shape(regclass, smallint[]) IS 'A checksum of what decides what a reader of these columns has: names, types, key, partitions.';

CREATE FUNCTION hub.objection(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
            THEN 'It is a table of Postgres''s own.'
        WHEN n.nspname = 'hub' THEN 'It is a table of the hub''s own.'
        WHEN c.relkind = 'v' THEN 'It is a view, which has no rows of its own: watch the tables behind it.'
        WHEN c.relkind = 'm' THEN 'It is a materialized view, and REFRESH fires no trigger.'
        WHEN c.relkind = 'f' THEN 'It is a foreign table: watch it where its rows are.'
        WHEN c.relkind NOT IN ('r', 'p') THEN 'It is no table.'
        WHEN c.relpersistence = 't' THEN 'It is a temporary table.'
        WHEN c.relpersistence = 'u' THEN 'It is unlogged: a crash empties it without a word.'
        WHEN c.relispartition THEN format(
            'It is a partition: watch %s instead, since rows that come through a parent fire no trigger here.',
            pg_partition_root(c.oid))
        ELSE (SELECT CASE
                WHEN p.relkind = 'f' THEN format('Its partition %s is a foreign table.', p.oid::regclass)
                WHEN p.relpersistence = 'u'
                    THEN format('Its partition %s is unlogged: a crash empties it without a word.', p.oid::regclass)
                WHEN h.inhparent = p.oid
                    THEN format('%s inherits from it, and one statement changes both.', h.inhrelid::regclass)
                WHEN h.inhrelid = p.oid
                    THEN format('It inherits from %s, and statements there change it too.', h.inhparent::regclass)
                ELSE format('%s is the target of a subscription, which fires no statement triggers.', p.oid::regclass) END
              FROM hub.tables_of(c.oid::regclass) AS t(oid)
              JOIN pg_class AS p ON p.oid = t.oid
              LEFT JOIN pg_inherits AS h ON c.relkind = 'r' AND c.oid IN (h.inhparent, h.inhrelid)
              LEFT JOIN pg_subscription_rel AS s ON s.srrelid = p.oid
             WHERE p.relkind = 'f' OR p.relpersistence = 'u' OR h.inhrelid IS NOT NULL OR s.srrelid IS NOT NULL LIMIT 1)
        END
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = objection.relation
$$;
COMMENT ON FUNCTION hub.objection(regclass) IS 'Why the changes of this relation cannot be told, in a sentence; null if they can.';

-- Without SET, so that it dissolves in the statement that calls it.
CREATE FUNCTION hub.change(
    op text, relation text, new jsonb DEFAULT NULL, old jsonb DEFAULT NULL, changed text[] DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.jsonb_build_object('op', op, 'table', relation, 'new', new, 'old', old, 'changed', changed)
$$;
COMMENT ON FUNCTION hub.change(text, text, jsonb, jsonb, text[]) IS 'An event as hub.watch publishes it.';

CREATE FUNCTION hub.reload(relation text, reason text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT hub.change('reload', reload.relation) || jsonb_build_object('reason', left(reload.reason, 500))
$$;
COMMENT ON FUNCTION hub.reload(text, text) IS 'An event that says: rows have changed in a way that is not told, read the table again.';

-- to_jsonb calls a cast to json if somebody has made one for a type, and would call it with the rights of the hub's
-- owner. Only who owns a type can make one.
CREATE FUNCTION hub.is_trusted(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found pg_type;
BEGIN
    IF is_trusted.type < 16384 THEN
        RETURN true;
    END IF;
    SELECT * INTO found FROM pg_type AS t WHERE t.oid = is_trusted.type;
    RETURN CASE
        WHEN found.oid IS NULL THEN false  -- younger than the snapshot
        WHEN found.typtype = 'd' THEN hub.is_trusted(found.typbasetype)
        WHEN found.typlen = -1 AND found.typelem <> 0 THEN hub.is_trusted(found.typelem)
        WHEN NOT pg_has_role(found.typowner, current_user, 'USAGE') THEN false
        ELSE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = found.typrelid AND a.attnum > 0
                                                         AND NOT a.attisdropped AND NOT hub.is_trusted(a.atttypid)) END;
END $$;
COMMENT ON FUNCTION hub.is_trusted(oid) IS 'Whether all that a type is made of belongs to Postgres, or to who may do what the hub''s owner may.';
REVOKE ALL ON FUNCTION hub.is_trusted(oid) FROM PUBLIC;

CREATE FUNCTION hub.expressions(relation regclass, columns text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM pg_attribute AS a
      WHERE a.attrelid = expressions.relation AND a.attnum > 0 AND NOT a.attisdropped
        AND (a.attgenerated = 'v' OR a.atttypid >= 16384 AND NOT hub.is_trusted(a.atttypid));
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT string_agg(format('%s AS %I', CASE
                       WHEN hub.is_trusted(a.type) THEN a.value
                       -- format calls the type's output function, never a cast.
                       ELSE format('CASE num_nulls(%1$s) WHEN 0 THEN format(''%%s'', %1$s)%2$s END', a.value,
                                   CASE WHEN t.typlen = -1 AND t.typelem <> 0 THEN '::text[]' END) END, a.name), ', ')
              FROM (SELECT a.attname AS name, a.atttypid AS type,
                           CASE WHEN a.attgenerated = 'v' THEN format('(%s)', pg_get_expr(d.adbin, d.adrelid))
                                ELSE format('t.%I', a.attname) END AS value
                      FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                     WHERE a.attrelid = expressions.relation AND a.attname = ANY (expressions.columns)) AS a
              JOIN pg_type AS t ON t.oid = a.type);
END $$;
COMMENT ON FUNCTION hub.expressions(regclass, text[]) IS 'What to select, where to_jsonb of a row would not do: virtual columns, types of others. Null if it would.';
REVOKE ALL ON FUNCTION hub.expressions(regclass, text[]) FROM PUBLIC;

-- Planning alone to read a table runs functions that its owner has chosen, those in conditions of indexes for one; and
-- a domain its checks. New base types are for superusers to make.
CREATE FUNCTION hub.is_comparable(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM (SELECT is_comparable.relation AS oid UNION SELECT relid FROM pg_partition_tree(is_comparable.relation)) AS t
          JOIN pg_class AS c ON c.oid = t.oid
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind NOT IN ('r', 'p') OR NOT pg_has_role(c.relowner, current_user, 'USAGE')
            OR n.nspowner <> to_regrole('pg_database_owner') AND NOT pg_has_role(n.nspowner, current_user, 'USAGE')
    ) AND NOT EXISTS (
        SELECT FROM pg_index AS i
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
          JOIN pg_type AS y ON y.oid = a.atttypid
         WHERE i.indrelid = is_comparable.relation AND i.indisprimary
           AND y.oid >= 16384 AND y.typtype <> 'e' AND NOT (y.typtype = 'b' AND y.typelem = 0));
END $$;
COMMENT ON FUNCTION hub.is_comparable(regclass) IS 'Whether a table may be read by its key: it, with its partitions, belongs to who may do what the hub''s owner may.';
REVOKE ALL ON FUNCTION hub.is_comparable(regclass) FROM PUBLIC;

CREATE FUNCTION hub.are_otherwise(shape hub.shapes, payloads jsonb[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns   text;  -- of the key, as they come from an event
    condition text;
    doc       text := COALESCE('(SELECT to_jsonb(r.*) FROM (SELECT ' || CASE WHEN NOT shape.plain
                          THEN hub.expressions(shape.relation, shape.columns) END || ') AS r)', 'to_jsonb(t.*) - $2');
    new       jsonb := NULLIF(payloads[1] -> 'new', 'null');
    now       jsonb;
    differ    boolean;
BEGIN
    SELECT string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                             (SELECT format(' COLLATE %I.%I', s.nspname, l.collname)
                                FROM pg_collation AS l JOIN pg_namespace AS s ON s.oid = l.collnamespace
                               WHERE l.oid = a.attcollation)), ', '),
           string_agg(format('t.%1$I OPERATOR(%2$I.%3$s) k.%1$I', a.attname, s.nspname, o.oprname), ' AND ')
      INTO columns, condition
      FROM pg_index AS i
     CROSS JOIN LATERAL unnest(i.indkey::smallint[], i.indclass::oid[]) AS part(number, class)
      JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = part.number
      JOIN pg_opclass AS c ON c.oid = part.class
      JOIN pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype
                       AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3
      JOIN pg_operator AS o ON o.oid = m.amopopr
      JOIN pg_namespace AS s ON s.oid = o.oprnamespace
     WHERE i.indrelid = shape.relation AND i.indisprimary;
    IF cardinality(payloads) = 1 THEN  -- the loops of procedures come here
        EXECUTE format('SELECT %s FROM jsonb_to_record($1) AS k(%s), %s AS t WHERE %s', doc, columns, shape.relation, condition)
           INTO now USING COALESCE(new, payloads[1] -> 'old') - shape.rest, shape.hidden;
        RETURN CASE WHEN payloads[1] ? 'stub' THEN now - shape.rest ELSE now END IS DISTINCT FROM new;
    END IF;
    -- The last event counts of a row that goes and comes.
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM (SELECT DISTINCT ON (e.key) e.key, e.new, e.stub'
        ' FROM (SELECT n.place, NULLIF(n.payload -> ''new'', ''null'') AS new, n.payload ? ''stub'' AS stub,'
        ' (CASE n.payload ->> ''op'' WHEN ''delete'' THEN n.payload -> ''old'' ELSE n.payload -> ''new'' END) - $3 AS key'
        ' FROM unnest($1) WITH ORDINALITY AS n(payload, place)) AS e ORDER BY e.key, e.place DESC) AS told'
        ' LEFT JOIN LATERAL (SELECT %s AS doc FROM jsonb_to_record(told.key) AS k(%s) JOIN %s AS t ON %s) AS now ON true'
        ' WHERE CASE WHEN told.stub THEN now.doc - $3 ELSE now.doc END IS DISTINCT FROM told.new)',
        doc, columns, shape.relation, condition) INTO differ USING payloads, shape.hidden, shape.rest;
    RETURN differ;
END $$;
COMMENT ON FUNCTION hub.are_otherwise(hub.shapes, jsonb[]) IS 'Whether rows are now others than these events tell, or gone, or there though deleted.';
REVOKE ALL ON FUNCTION hub.are_otherwise(hub.shapes, jsonb[]) FROM PUBLIC;

-- By its name the trigger that fires cannot be found: it may have got another in the middle of the statement. But it
-- cannot be dropped or replaced then, so it is one of these.
CREATE FUNCTION hub.has_foreign_triggers(relation regclass) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_trigger AS g
                    WHERE g.tgrelid = has_foreign_triggers.relation AND g.tgfoid = to_regprocedure('hub.publish_rows()')
                      AND (g.tgtype & 20 <> 0 AND g.tgnewtable IS DISTINCT FROM 'hub_new'  -- insert, update
                           OR g.tgtype & 24 <> 0 AND g.tgoldtable IS DISTINCT FROM 'hub_old'))  -- delete, update
$$;
COMMENT ON FUNCTION hub.has_foreign_triggers(regclass) IS 'Whether a trigger that calls hub.publish_rows lacks the transition tables it reads.';
REVOKE ALL ON FUNCTION hub.has_foreign_triggers(regclass) FROM PUBLIC;

-- The settings are those that decide how a value is written, and two that spare each statement the planning.
--
-- Rows become jsonb at once, by t.*, and nothing else stands beside columns whose names are the user's: those of
-- variables win, and a column may be called as an alias is. Where to_jsonb would not do, the rows are computed before.
CREATE FUNCTION hub.publish_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
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
                       END
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
            FETCH changes INTO payload;
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
            bytes := bytes + length;
            IF bytes > 4000000 OR cardinality(payloads) >= 1000 THEN
                differs := compared AND hub.are_otherwise(shape, payloads);
                EXIT WHEN differs;
                INSERT INTO hub.events (channel, payload)
                SELECT shape.channel, p.payload FROM unnest(payloads) AS p(payload);
                payloads := '{}';
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
    END;
    INSERT INTO hub.events (channel, payload) SELECT shape.channel, p.payload FROM unnest(payloads) AS p(payload);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION hub.publish_rows() IS 'Publishes what an INSERT, an UPDATE or a DELETE has done, an event a row.';
REVOKE ALL ON FUNCTION hub.publish_rows() FROM PUBLIC;

-- A TRUNCATE fires the triggers of the table and of all its partitions, the table's own first, unless somebody names a
-- partition before it. So whoever speaks first notes, until the end of the transaction, who is still to be silent.
CREATE FUNCTION hub.publish_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shape   hub.shapes;
    own     text := TG_RELID::text;
    began   text := EXTRACT(epoch FROM statement_timestamp())::text;
    silent  text[] := string_to_array(current_setting('hub.truncating', true), ' ');
    told    text[] := string_to_array(current_setting('hub.publishing', true), ' ');
    note    text;
    filled  boolean := false;
BEGIN
    IF TG_LEVEL <> 'STATEMENT' OR TG_WHEN <> 'AFTER' OR TG_OP <> 'TRUNCATE' THEN
        RETURN NULL;
    END IF;
    SELECT s.* INTO shape FROM hub.shapes AS s
     WHERE s.relation = COALESCE(
               (SELECT w.relation FROM pg_partition_ancestors(TG_RELID) WITH ORDINALITY AS above(oid, level)
                  JOIN hub.watches AS w ON w.relation = above.oid ORDER BY above.level DESC LIMIT 1), TG_RELID);
    IF NOT FOUND THEN
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
    IF silent[1] IS DISTINCT FROM began THEN
        silent := ARRAY[began];
    END IF;
    IF own = ANY (silent) THEN
        PERFORM set_config('hub.truncating', array_to_string(array_remove(silent, own), ' '), true);
        RETURN NULL;
    END IF;
    -- One that has spoken already does not fire again for this statement; if it does, it was another statement.
    silent := silent || ARRAY(
        SELECT t.oid::oid::text FROM hub.tables_of(TG_RELID) AS t(oid)
         WHERE t.oid <> TG_RELID AND '-' || t.oid::oid::text <> ALL (silent)
           AND EXISTS (SELECT FROM pg_trigger AS g
                        WHERE g.tgrelid = t.oid AND g.tgenabled = 'A'
                          AND g.tgfoid = 'hub.publish_truncate()'::regprocedure))
        || ('-' || own);
    PERFORM set_config('hub.truncating', array_to_string(silent, ' '), true);
    -- As hub.publish_rows does it: a trigger may have filled the table before this one fires.
    IF told[1] IS DISTINCT FROM began THEN
        told := ARRAY[began];
    END IF;
    note := shape.relation::oid || '/' || pg_trigger_depth();
    IF EXISTS (SELECT FROM unnest(told[2:]) AS n(noted) WHERE split_part(noted, '/', 1) = shape.relation::oid::text) THEN
        filled := true;
        IF hub.is_comparable(shape.relation) THEN
            BEGIN
                EXECUTE format('SELECT EXISTS (SELECT FROM %s)', shape.relation) INTO filled;
            EXCEPTION WHEN OTHERS THEN
                filled := true;
            END;
        END IF;
    END IF;
    PERFORM set_config('hub.publishing', array_to_string(array_remove(told, note) || note, ' '), true);
    INSERT INTO hub.events (channel, payload) VALUES (shape.channel, CASE
        WHEN filled AND shape.relation = TG_RELID
            THEN hub.reload(shape."table", 'It was truncated, and rows may have come since.')
        WHEN shape.relation <> TG_RELID
            THEN hub.reload(shape."table", format('The partition %I.%I was truncated.', TG_TABLE_SCHEMA, TG_TABLE_NAME))
        ELSE hub.change('truncate', shape."table") END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION hub.publish_truncate() IS 'Publishes a TRUNCATE, once for a table and its partitions; that of a partition alone as a reload.';
REVOKE ALL ON FUNCTION hub.publish_truncate() FROM PUBLIC;

CREATE FUNCTION hub.is_armed(relation regclass, channel text, stamp text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) = 4 FROM pg_trigger AS g
     WHERE g.tgrelid = is_armed.relation AND g.tgenabled = 'A'
       AND g.tgargs = convert_to(is_armed.channel, getdatabaseencoding()) || '\x00' || convert_to(is_armed.stamp, 'UTF8') || '\x00'
       AND (g.tgname, g.tgfoid) IN (
               ('hub_insert', 'hub.publish_rows()'::regprocedure), ('hub_update', 'hub.publish_rows()'::regprocedure),
               ('hub_delete', 'hub.publish_rows()'::regprocedure), ('hub_truncate', 'hub.publish_truncate()'::regprocedure))
$$;
COMMENT ON FUNCTION hub.is_armed(regclass, text, text) IS 'Whether a table has the hub''s triggers, and all of them fire.';

CREATE FUNCTION hub.arm(relation regclass, channel text, stamp text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    each    regclass;
    trigger record;
    armed   integer := 0;
BEGIN
    FOR each IN SELECT t FROM hub.tables_of(arm.relation) AS t WHERE NOT hub.is_armed(t, arm.channel, arm.stamp) LOOP
        FOR trigger IN SELECT * FROM (VALUES
            ('insert', 'REFERENCING NEW TABLE AS hub_new', 'rows'), ('delete', 'REFERENCING OLD TABLE AS hub_old', 'rows'),
            ('update', 'REFERENCING OLD TABLE AS hub_old NEW TABLE AS hub_new', 'rows'), ('truncate', '', 'truncate')
        ) AS v(event, tables, what) LOOP
            EXECUTE format(
                'CREATE OR REPLACE TRIGGER hub_%1$s AFTER %1$s ON %2$s %3$s EXECUTE FUNCTION hub.publish_%4$s(%5$L, %6$L)',
                trigger.event, each, trigger.tables, trigger.what, arm.channel, arm.stamp);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER hub_%s', each, trigger.event);
        END LOOP;
        armed := armed + 1;
    END LOOP;
    RETURN armed;
END $$;
COMMENT ON FUNCTION hub.arm(regclass, text, text) IS 'Puts the hub''s triggers on a table and its partitions, with the caller''s rights; returns how many lacked some.';

CREATE FUNCTION hub.disarm(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trigger text;
BEGIN
    FOR trigger IN SELECT g.tgname FROM pg_trigger AS g
                    WHERE g.tgrelid = disarm.relation
                      AND g.tgfoid IN ('hub.publish_rows()'::regprocedure, 'hub.publish_truncate()'::regprocedure) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger, disarm.relation);
    END LOOP;
END $$;
COMMENT ON FUNCTION hub.disarm(regclass) IS 'Takes the hub''s triggers from one table, with the caller''s rights.';

CREATE FUNCTION hub.publish_reload() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO hub.events (channel, payload) VALUES (old.channel, hub.reload(old.name, 'It is watched no longer.'));
        RETURN NULL;
    END IF;
    IF (new.channel, new.name) <> (old.channel, old.name) THEN
        INSERT INTO hub.events (channel, payload)
        VALUES (old.channel, hub.reload(old.name, 'It has another name or channel now.'));
    END IF;
    IF new.failure IS DISTINCT FROM old.failure AND new.failure = hub.objection(new.relation) THEN
        INSERT INTO hub.events (channel, payload) VALUES (new.channel, hub.reload(new.name, new.failure));
    ELSIF new.shape <> old.shape OR new.repaired_at IS DISTINCT FROM old.repaired_at THEN
        INSERT INTO hub.events (channel, payload) VALUES (new.channel, hub.reload(new.name, CASE
            WHEN new.shape <> old.shape THEN 'Its columns, its key or its partitions have changed.'
            WHEN old.failure IS NOT NULL THEN 'Its changes are told again: some may have passed unseen.'
            ELSE 'Triggers were missing: changes may have passed unseen.' END));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION hub.publish_reload() IS 'Tells readers of a watched table that it is another than they know, or that something may have passed unseen.';
REVOKE ALL ON FUNCTION hub.publish_reload() FROM PUBLIC;
CREATE TRIGGER reload AFTER UPDATE OR DELETE ON hub.watches FOR EACH ROW EXECUTE FUNCTION hub.publish_reload();

CREATE FUNCTION hub.watch(
    relation regclass, channel text DEFAULT NULL, columns text[] DEFAULT NULL, old boolean DEFAULT false
) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    objection text := hub.objection(watch.relation);
    missing   text;
    numbers   smallint[];
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
    IF watch.channel IS NULL THEN
        SELECT CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END INTO STRICT channel
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = watch.relation;
    END IF;
    stamp := hub.stamp(watch.relation, watch.channel, COALESCE(watch.old, false), numbers);
    BEGIN
        INSERT INTO hub.watches AS w (relation, name, channel, old, columns, numbers, numbered_for, stamp, shape)
        VALUES (watch.relation, hub.name_of(watch.relation), watch.channel, COALESCE(watch.old, false), watch.columns, numbers,
                watch.relation, stamp, hub.shape(watch.relation, numbers))
        ON CONFLICT ON CONSTRAINT watches_pkey DO UPDATE
        SET name = EXCLUDED.name, channel = EXCLUDED.channel, old = EXCLUDED.old, columns = EXCLUDED.columns, numbers = EXCLUDED.numbers,
            numbered_for = EXCLUDED.numbered_for, stamp = EXCLUDED.stamp, shape = EXCLUDED.shape, failure = NULL,
            repaired_at = CASE WHEN EXISTS (SELECT FROM hub.tables_of(w.relation) AS t WHERE NOT hub.is_armed(t, w.channel, w.stamp))
                               THEN clock_timestamp() ELSE w.repaired_at END;
    EXCEPTION WHEN check_violation THEN
        RAISE EXCEPTION '% is no legal name of a channel', quote_literal(watch.channel) USING ERRCODE = 'check_violation',
            HINT = 'Name one: hub.watch(…, channel => …), 1 to 63 bytes, no control characters, no *, not $… or hub_….';
    END;
    PERFORM hub.arm(watch.relation, watch.channel, stamp);
    RETURN watch.channel;
END $$;
COMMENT ON FUNCTION hub.watch(regclass, text, text[], boolean) IS 'Publishes the changes of a table from now on; returns the channel. Called again, it changes how.';
REVOKE ALL ON FUNCTION hub.watch(regclass, text, text[], boolean) FROM PUBLIC;

CREATE FUNCTION hub.unwatch(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM hub.watches AS w WHERE w.relation = unwatch.relation;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not watched, or not yours', unwatch.relation USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM hub.disarm(t) FROM hub.tables_of(unwatch.relation) AS t WHERE hub.watched_by(t) IS NULL;
END $$;
COMMENT ON FUNCTION hub.unwatch(regclass) IS 'Ends what hub.watch began.';
REVOKE ALL ON FUNCTION hub.unwatch(regclass) FROM PUBLIC;

CREATE FUNCTION hub.amiss(watch hub.watches) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(
        hub.objection(watch.relation),
        (SELECT format('Triggers are missing on %s, or disabled: what is changed there may not be told.', t)
                || COALESCE(' They cannot be put back: ' || watch.failure || '.', '')
           FROM hub.tables_of(watch.relation) AS t WHERE NOT hub.is_armed(t, watch.channel, watch.stamp) LIMIT 1),
        'It has changed, and what follows from that cannot be done: ' || watch.failure || '.')
$$;
COMMENT ON FUNCTION hub.amiss(hub.watches) IS 'Why changes of a watched table may pass unseen, in a sentence; null if all is well.';

CREATE VIEW hub.watched AS
SELECT s.relation, s."table", s.channel, s.columns, s.old, s.key, hub.amiss(w) AS amiss
  FROM hub.shapes AS s JOIN hub.watches AS w ON w.relation = s.relation;
COMMENT ON VIEW hub.watched IS 'The tables whose changes are published, and how.';
COMMENT ON COLUMN hub.watched.relation IS 'The table; the parent, if it is partitioned.';
COMMENT ON COLUMN hub.watched."table" IS 'Its name as it stands in events, with the schema.';
COMMENT ON COLUMN hub.watched.channel IS 'Where its changes are published.';
COMMENT ON COLUMN hub.watched.columns IS 'The columns that are published, in their order.';
COMMENT ON COLUMN hub.watched.old IS 'Whether updates and deletes tell the whole row as it was.';
COMMENT ON COLUMN hub.watched.key IS 'The columns of the primary key, in its order; none if there is no key or it is deferrable.';
COMMENT ON COLUMN hub.watched.amiss IS 'Why changes may pass unseen, in a sentence; null if all is well.';

CREATE FUNCTION hub.is_due(watch hub.watches) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT watch.relation::oid <> watch.numbered_for
        OR watch.name <> hub.name_of(watch.relation)
        OR watch.shape <> hub.shape(watch.relation, watch.numbers)
        OR watch.failure IS NOT NULL
        OR watch.stamp <> hub.stamp(watch.relation, watch.channel, watch.old, watch.numbers)
        OR EXISTS (SELECT FROM hub.tables_of(watch.relation) AS t WHERE NOT hub.is_armed(t, watch.channel, watch.stamp))
$$;
COMMENT ON FUNCTION hub.is_due(hub.watches) IS 'Whether a watched table is another than it was, or lacks triggers.';
REVOKE ALL ON FUNCTION hub.is_due(hub.watches) FROM PUBLIC;

-- That it has become a partition is left to hub.watched: its parent is to be watched then, and speaks for it.
CREATE FUNCTION hub.new_objection(watch hub.watches) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NULLIF(hub.objection(watch.relation), watch.failure) FROM pg_class AS c
     WHERE c.oid = watch.relation AND NOT c.relispartition
$$;
COMMENT ON FUNCTION hub.new_objection(hub.watches) IS 'Why the changes of a watched table can be told no longer, if its readers do not know.';
REVOKE ALL ON FUNCTION hub.new_objection(hub.watches) FROM PUBLIC;

CREATE FUNCTION hub.strays() RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.oid::regclass
      FROM (SELECT DISTINCT g.tgrelid FROM pg_trigger AS g
             WHERE g.tgfoid IN ('hub.publish_rows()'::regprocedure, 'hub.publish_truncate()'::regprocedure)) AS t(oid)
     WHERE hub.watched_by(t.oid) IS NULL
$$;
COMMENT ON FUNCTION hub.strays() IS 'Tables with triggers of the hub that nobody watches any more: partitions that were detached.';
REVOKE ALL ON FUNCTION hub.strays() FROM PUBLIC;

CREATE FUNCTION hub.watches_due() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM hub.watches AS w LEFT JOIN pg_class AS c ON c.oid = w.relation
                    WHERE c.oid IS NULL OR hub.objection(w.relation) IS NULL AND hub.is_due(w)
                       OR hub.new_objection(w) IS NOT NULL)
        OR EXISTS (SELECT FROM hub.strays())
$$;
COMMENT ON FUNCTION hub.watches_due() IS 'Whether hub.rewatch would find anything to do.';
REVOKE ALL ON FUNCTION hub.watches_due() FROM PUBLIC;

-- It waits less than the deadlock_timeout for a lock: if it stands in somebody's way, it is the one that gives up.
CREATE FUNCTION hub.rewatch() RETURNS integer
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
            watch.stamp := hub.stamp(watch.relation, watch.channel, watch.old, watch.numbers);
            armed := hub.arm(watch.relation, watch.channel, watch.stamp);
            UPDATE hub.watches AS w
               SET name = hub.name_of(watch.relation), columns = watch.columns, numbers = watch.numbers,
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
COMMENT ON FUNCTION hub.rewatch() IS 'Follows watched tables that have changed: triggers on new partitions, off detached ones; returns how many tables it put right.';
REVOKE ALL ON FUNCTION hub.rewatch() FROM PUBLIC;
