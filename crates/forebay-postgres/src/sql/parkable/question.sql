WITH RECURSIVE lines AS MATERIALIZED (
  SELECT pg_catalog.split_part(line, E'\t', 1) AS kind,
    pg_catalog.split_part(line, E'\t', 2)::pg_catalog.name AS nsp,
    pg_catalog.split_part(line, E'\t', 3)::pg_catalog.name AS name
  FROM pg_catalog.unnest(pg_catalog.string_to_array($1::pg_catalog.text, E'\n')) line
),
asked AS MATERIALIZED (
  SELECT l.kind, l.nsp, l.name, n.oid AS nspoid, l.nsp OPERATOR(pg_catalog.=) '' AS anywhere
  FROM lines l LEFT JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) l.nsp
),
-- What allowed extensions have brought, by the catalogue in which it stands.
allowed AS MATERIALIZED (
  SELECT d.classid, d.objid FROM asked k
    JOIN pg_catalog.pg_extension e ON e.extname OPERATOR(pg_catalog.=) k.name
    JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 3079
      AND d.refobjid OPERATOR(pg_catalog.=) e.oid
  WHERE k.kind OPERATOR(pg_catalog.=) 'extension' AND d.deptype OPERATOR(pg_catalog.=) 'e'
),
-- Base types of extensions that are not allowed: no value of theirs can be met, since columns
-- and conversions of such types are refused.
foreign_types AS MATERIALIZED (
  SELECT t.oid FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem
  WHERE t.oid OPERATOR(pg_catalog.>=) '16384' AND t.typtype OPERATOR(pg_catalog.=) 'b'
    AND (e.typarray OPERATOR(pg_catalog.<>) t.oid) IS NOT FALSE
    AND NOT EXISTS (SELECT FROM allowed a WHERE a.classid OPERATOR(pg_catalog.=) 1247
      AND a.objid OPERATOR(pg_catalog.=) t.oid)
),
-- Functions that are called by name, by a dot, or by an operator.
functions AS MATERIALIZED (
  SELECT k.kind, k.nsp, k.name, p.oid
  FROM asked k JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) 'function'
    AND (k.anywhere OR p.pronamespace OPERATOR(pg_catalog.=) k.nspoid)
  UNION ALL
  SELECT k.kind, k.nsp, k.name, p.oid
  FROM asked k JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) 'attribute' AND p.pronargs OPERATOR(pg_catalog.>=) 1
    AND (p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults) OPERATOR(pg_catalog.<=) 1
  UNION ALL
  SELECT k.kind, k.nsp, k.name, o.oprcode::pg_catalog.oid
  FROM asked k JOIN pg_catalog.pg_operator o ON o.oprname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) 'operator'
    AND (k.anywhere OR o.oprnamespace OPERATOR(pg_catalog.=) k.nspoid)
    AND NOT ((o.oprleft OPERATOR(pg_catalog.=) '0' OR o.oprleft OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types))
      AND o.oprright OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types))
  UNION ALL
  -- Those that work without being named: of casts, of classes of operators, of text search.
  SELECT 'hidden', '', '', c.castfunc FROM pg_catalog.pg_cast c
  WHERE c.castfunc OPERATOR(pg_catalog.>=) '16384'
    AND NOT c.castsource OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types)
    AND NOT c.casttarget OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types)
    -- Nor can a value of the database's own range types be met.
    AND NOT (c.castsource OPERATOR(pg_catalog.>=) '16384'
      AND EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngtypid OPERATOR(pg_catalog.=) c.castsource))
  UNION ALL
  SELECT 'hidden', '', '', a.amproc::pg_catalog.oid FROM pg_catalog.pg_amproc a
  WHERE a.amproc::pg_catalog.oid OPERATOR(pg_catalog.>=) '16384'
    AND NOT a.amproclefttype OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types)
  UNION ALL
  SELECT 'hidden', '', '', o.oprcode::pg_catalog.oid FROM pg_catalog.pg_amop a
    JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) a.amopopr
  WHERE o.oprcode::pg_catalog.oid OPERATOR(pg_catalog.>=) '16384'
    AND NOT a.amoplefttype OPERATOR(pg_catalog.=) ANY (SELECT oid FROM foreign_types)
  UNION ALL
  SELECT 'hidden', '', '', t.tmpllexize::pg_catalog.oid FROM pg_catalog.pg_ts_template t
  UNION ALL
  SELECT 'hidden', '', '', p.prstoken::pg_catalog.oid FROM pg_catalog.pg_ts_parser p
),
judged AS MATERIALIZED (
  SELECT f.kind, f.nsp, f.name, p.provolatile OPERATOR(pg_catalog.=) 'v' AS is_volatile,
    p.oid OPERATOR(pg_catalog.<) '16384' AND p.pronamespace OPERATOR(pg_catalog.=) '11'
      OR EXISTS (SELECT FROM allowed a WHERE a.classid OPERATOR(pg_catalog.=) 1255
        AND a.objid OPERATOR(pg_catalog.=) f.oid) AS is_known
  FROM functions f LEFT JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) f.oid
),
relations AS MATERIALIZED (
  SELECT k.kind, k.nsp, k.name, c.oid, c.relkind, c.relpersistence, c.relrowsecurity,
    EXISTS (SELECT FROM asked l WHERE l.kind OPERATOR(pg_catalog.=) 'listed'
      AND l.nspoid OPERATOR(pg_catalog.=) c.relnamespace
      AND l.name OPERATOR(pg_catalog.=) c.relname) AS is_listed
  FROM asked k JOIN pg_catalog.pg_class c ON c.relname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) ANY ('{relation,given}')
    AND (k.anywhere OR c.relnamespace OPERATOR(pg_catalog.=) k.nspoid)
),
-- Types that are named, declared or of columns, and what arrays and domains are made of.
types (kind, nsp, name, oid) AS (
  SELECT k.kind, k.nsp, k.name, t.oid
  FROM asked k JOIN pg_catalog.pg_type t ON t.typname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) 'type'
    AND (k.anywhere OR t.typnamespace OPERATOR(pg_catalog.=) k.nspoid)
  UNION ALL
  -- What looks like a call may convert, though not to a row's type.
  SELECT k.kind, k.nsp, k.name, t.oid
  FROM asked k JOIN pg_catalog.pg_type t ON t.typname OPERATOR(pg_catalog.=) k.name
  WHERE k.kind OPERATOR(pg_catalog.=) ANY ('{function,attribute}')
    AND t.typrelid OPERATOR(pg_catalog.=) '0'
  UNION ALL
  SELECT k.kind, k.nsp, k.name, k.name::pg_catalog.text::pg_catalog.oid FROM asked k
  WHERE k.kind OPERATOR(pg_catalog.=) 'declared'
  UNION ALL
  SELECT r.kind, r.nsp, r.name, c.atttypid
  FROM relations r JOIN pg_catalog.pg_attribute c ON c.attrelid OPERATOR(pg_catalog.=) r.oid
  WHERE c.attnum OPERATOR(pg_catalog.>) 0 AND NOT c.attisdropped
  UNION
  SELECT y.kind, y.nsp, y.name, CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'd' THEN t.typbasetype ELSE t.typelem END
  FROM types y JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) y.oid
  WHERE t.oid OPERATOR(pg_catalog.>=) '16384'
    AND (t.typtype OPERATOR(pg_catalog.=) 'd' OR t.typelem OPERATOR(pg_catalog.<>) '0')
),
own_types AS (
  SELECT y.name FROM types y LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) y.oid
    LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem
  WHERE (t.oid OPERATOR(pg_catalog.<) '16384' AND t.typnamespace OPERATOR(pg_catalog.=) '11') IS NOT TRUE
    AND (t.typtype OPERATOR(pg_catalog.=) 'e') IS NOT TRUE
    AND (e.typarray OPERATOR(pg_catalog.=) t.oid) IS NOT TRUE
    AND (t.typtype OPERATOR(pg_catalog.=) 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint n
      WHERE n.contypid OPERATOR(pg_catalog.=) t.oid AND n.contype OPERATOR(pg_catalog.=) 'c')) IS NOT TRUE
    AND NOT EXISTS (SELECT FROM allowed a WHERE a.classid OPERATOR(pg_catalog.=) 1247
      AND a.objid OPERATOR(pg_catalog.=) t.oid)
),
refusals (rank, refusal, name) AS (
  SELECT 1, 'hidden_functions', '' FROM judged j
  WHERE j.kind OPERATOR(pg_catalog.=) 'hidden' AND j.is_known IS NOT TRUE
  UNION ALL
  SELECT 2, 'own_function', j.name FROM judged j
  WHERE j.kind OPERATOR(pg_catalog.=) ANY ('{function,attribute}') AND j.is_known IS NOT TRUE
  UNION ALL
  SELECT 3, 'volatile_function', j.name FROM judged j
  WHERE j.kind OPERATOR(pg_catalog.=) ANY ('{function,attribute}') AND j.is_volatile IS NOT FALSE
  UNION ALL
  SELECT 4, 'own_operator', j.name FROM judged j
  WHERE j.kind OPERATOR(pg_catalog.=) 'operator' AND (j.is_known IS NOT TRUE OR j.is_volatile IS NOT FALSE)
  UNION ALL
  SELECT 5, 'own_type', y.name FROM own_types y
  UNION ALL
  SELECT 6, 'not_a_table', r.name FROM relations r
  WHERE NOT r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m}') AND NOT r.is_listed
  UNION ALL
  SELECT 7, 'names_temporary_table', r.name FROM relations r WHERE r.relpersistence OPERATOR(pg_catalog.=) 't'
  UNION ALL
  SELECT 8, 'names_row_security', r.name FROM relations r WHERE r.relrowsecurity AND NOT r.is_listed
  UNION ALL
  SELECT 9, 'unknown_function', k.name FROM asked k
  WHERE k.kind OPERATOR(pg_catalog.=) 'function' AND NOT EXISTS (SELECT FROM functions f
    WHERE f.kind OPERATOR(pg_catalog.=) 'function' AND f.nsp OPERATOR(pg_catalog.=) k.nsp AND f.name OPERATOR(pg_catalog.=) k.name)
  UNION ALL
  SELECT 10, 'unknown_operator', k.name FROM asked k
  WHERE k.kind OPERATOR(pg_catalog.=) 'operator' AND NOT EXISTS (SELECT FROM functions f
    WHERE f.kind OPERATOR(pg_catalog.=) 'operator' AND f.nsp OPERATOR(pg_catalog.=) k.nsp AND f.name OPERATOR(pg_catalog.=) k.name)
  UNION ALL
  SELECT 11, 'unknown_type', k.name FROM asked k
  WHERE k.kind OPERATOR(pg_catalog.=) 'type' AND NOT EXISTS (SELECT FROM types y
    WHERE y.kind OPERATOR(pg_catalog.=) 'type' AND y.nsp OPERATOR(pg_catalog.=) k.nsp AND y.name OPERATOR(pg_catalog.=) k.name)
  UNION ALL
  SELECT 12, 'unknown_relation', k.name FROM asked k
  WHERE k.kind OPERATOR(pg_catalog.=) 'relation' AND NOT EXISTS (SELECT FROM relations r
    WHERE r.nsp OPERATOR(pg_catalog.=) k.nsp AND r.name OPERATOR(pg_catalog.=) k.name)
)
SELECT (SELECT pg_catalog.count(*) FROM lines
    WHERE kind OPERATOR(pg_catalog.=) ANY ('{extension,listed,function,attribute,operator,type,declared,relation,given}')),
  (SELECT refusal FROM refusals ORDER BY rank LIMIT 1),
  (SELECT name FROM refusals ORDER BY rank LIMIT 1)
