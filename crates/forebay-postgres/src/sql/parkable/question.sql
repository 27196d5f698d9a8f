WITH RECURSIVE lines AS MATERIALIZED (
  SELECT pg_catalog.split_part(line, E'\t', 1) AS kind,
    pg_catalog.split_part(line, E'\t', 2)::pg_catalog.name AS nsp,
    pg_catalog.split_part(line, E'\t', 3)::pg_catalog.name AS name
  FROM pg_catalog.unnest(pg_catalog.string_to_array($1::pg_catalog.text, E'\n')) line
),
extensions AS MATERIALIZED (
  SELECT e.oid FROM pg_catalog.pg_extension e JOIN lines l ON e.extname OPERATOR(pg_catalog.=) l.name
  WHERE l.kind OPERATOR(pg_catalog.=) 'extension'
),
-- What may be used, by the catalogue that it stands in: what an allowed extension has brought.
allowed AS MATERIALIZED (
  SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN extensions e ON d.refobjid OPERATOR(pg_catalog.=) e.oid
  WHERE d.refclassid OPERATOR(pg_catalog.=) 3079 AND d.deptype OPERATOR(pg_catalog.=) 'e'
),
-- Functions that answers hang on: of calls, and those behind operators.
functions AS (
  SELECT l.kind, l.nsp, l.name, p.oid, p.provolatile
  FROM lines l JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) l.name
  WHERE l.kind OPERATOR(pg_catalog.=) 'function'
    AND (l.nsp OPERATOR(pg_catalog.=) '' OR p.pronamespace OPERATOR(pg_catalog.=)
      (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) l.nsp))
    OR l.kind OPERATOR(pg_catalog.=) 'attribute' AND p.pronargs OPERATOR(pg_catalog.>=) 1
      AND (p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults) OPERATOR(pg_catalog.<=) 1
  UNION ALL
  SELECT l.kind, l.nsp, l.name, p.oid, p.provolatile
  FROM lines l JOIN pg_catalog.pg_operator o ON o.oprname OPERATOR(pg_catalog.=) l.name
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode
  WHERE l.kind OPERATOR(pg_catalog.=) 'operator'
    AND (l.nsp OPERATOR(pg_catalog.=) '' OR o.oprnamespace OPERATOR(pg_catalog.=)
      (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) l.nsp))
),
relations AS (
  SELECT l.kind, l.nsp, l.name, c.oid, c.relkind, c.relpersistence, c.relrowsecurity
  FROM lines l JOIN pg_catalog.pg_class c ON c.relname OPERATOR(pg_catalog.=) l.name
  WHERE (l.kind OPERATOR(pg_catalog.=) 'relation' OR l.kind OPERATOR(pg_catalog.=) 'given')
    AND (l.nsp OPERATOR(pg_catalog.=) '' OR c.relnamespace OPERATOR(pg_catalog.=)
      (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) l.nsp))
),
-- Types, and what arrays and domains are made of.
types (kind, nsp, name, oid) AS (
  SELECT l.kind, l.nsp, l.name, t.oid
  FROM lines l JOIN pg_catalog.pg_type t ON t.typname OPERATOR(pg_catalog.=) l.name
  WHERE l.kind OPERATOR(pg_catalog.=) 'type'
    AND (l.nsp OPERATOR(pg_catalog.=) '' OR t.typnamespace OPERATOR(pg_catalog.=)
      (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) l.nsp))
    -- A call or a name behind a dot may convert to a type, but not to a row's.
    OR (l.kind OPERATOR(pg_catalog.=) 'function' OR l.kind OPERATOR(pg_catalog.=) 'attribute')
      AND t.typrelid OPERATOR(pg_catalog.=) 0
  UNION ALL
  SELECT l.kind, l.nsp, l.name, l.name::pg_catalog.text::pg_catalog.oid FROM lines l
  WHERE l.kind OPERATOR(pg_catalog.=) 'declared'
  UNION ALL
  SELECT r.kind, r.nsp, r.name, a.atttypid
  FROM relations r JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) r.oid
  WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
  UNION
  SELECT y.kind, y.nsp, y.name, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
  FROM types y JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) y.oid
  WHERE t.oid OPERATOR(pg_catalog.>=) 16384 AND (t.typtype OPERATOR(pg_catalog.=) 'd'
    OR t.typcategory OPERATOR(pg_catalog.=) 'A' AND t.typelem OPERATOR(pg_catalog.<>) 0)
),
-- Functions that work without being named.
hidden (oid) AS (
  SELECT c.castfunc FROM pg_catalog.pg_cast c
  UNION SELECT a.amproc::pg_catalog.oid FROM pg_catalog.pg_amproc a
  UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_amop a
    JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) a.amopopr
  UNION SELECT r.rngcanonical::pg_catalog.oid FROM pg_catalog.pg_range r
  UNION SELECT r.rngsubdiff::pg_catalog.oid FROM pg_catalog.pg_range r
  UNION SELECT t.tmpllexize::pg_catalog.oid FROM pg_catalog.pg_ts_template t
  UNION SELECT p.prstoken::pg_catalog.oid FROM pg_catalog.pg_ts_parser p
)
SELECT 1
