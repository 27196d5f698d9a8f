SELECT scope, name, body, coalesce(text, '') FROM (
  SELECT 'routine' AS scope, p.proname::text AS name,
    CASE
      WHEN p.prokind = 'a' THEN 'names'
      WHEN l.lanname IN ('c', 'internal') AND EXISTS (
        SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 1255 AND d.objid = p.oid AND d.refclassid = 3079 AND d.deptype = 'e'
          AND e.extname IN ('amcheck', 'bloom', 'btree_gin', 'btree_gist', 'citext', 'cube',
            'dict_int', 'dict_xsyn', 'earthdistance', 'file_fdw', 'fuzzystrmatch', 'h3', 'hstore',
            'hypopg', 'intarray', 'isn', 'lo', 'ltree', 'pageinspect', 'pg_buffercache',
            'pg_freespacemap', 'pg_prewarm', 'pg_stat_statements', 'pg_surgery', 'pg_trgm',
            'pg_visibility', 'pg_walinspect', 'pgcrypto', 'pgrowlocks', 'pgstattuple', 'postgis',
            'postgis_raster', 'postgis_topology', 'postgres_fdw', 'rum', 'seg', 'sslinfo', 'tcn',
            'tsm_system_rows', 'tsm_system_time', 'unaccent', 'uuid-ossp', 'vector')) THEN 'harmless'
      WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN 'opaque'
      WHEN p.prosrc = '' THEN 'names'
      ELSE 'statements'
    END AS body,
    CASE
      WHEN p.prokind = 'a' THEN (
        SELECT pg_catalog.concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
          a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
        FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid)
      WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN ''
      WHEN p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid)
      ELSE pg_catalog.concat_ws('; ', p.prosrc, pg_catalog.pg_get_expr(p.proargdefaults, 0))
    END AS text
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.pg_get_ruledef(r.oid)
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  WHERE r.oid >= 16384
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.pg_get_triggerdef(t.oid)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  WHERE NOT t.tgisinternal
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.pg_get_expr(d.adbin, d.adrelid)
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.concat_ws(' ',
    pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
  UNION ALL
  SELECT CASE WHEN n.conrelid = 0 THEN 'everything' ELSE 'relation' END, c.relname, 'names',
    pg_catalog.pg_get_constraintdef(n.oid)
  FROM pg_catalog.pg_constraint n LEFT JOIN pg_catalog.pg_class c ON c.oid = n.conrelid
  WHERE n.contype IN ('c', 'x') AND n.oid >= 16384
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.pg_get_indexdef(i.indexrelid)
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  WHERE i.indexrelid >= 16384 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
  UNION ALL
  SELECT 'relation', c.relname, 'names', pg_catalog.pg_get_partkeydef(p.partrelid)
  FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_class c ON c.oid = p.partrelid
  WHERE p.partexprs IS NOT NULL
  UNION ALL
  SELECT 'relation', parent.relname, 'names', pg_catalog.quote_ident(child.relname)
  FROM pg_catalog.pg_constraint n JOIN pg_catalog.pg_class parent ON parent.oid = n.confrelid
    JOIN pg_catalog.pg_class child ON child.oid = n.conrelid
  WHERE n.contype = 'f' AND (n.confdeltype IN ('c', 'n', 'd') OR n.confupdtype IN ('c', 'n', 'd'))
  UNION ALL
  SELECT 'relation', parent.relname, 'names', pg_catalog.quote_ident(child.relname)
  FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class parent ON parent.oid = i.inhparent
    JOIN pg_catalog.pg_class child ON child.oid = i.inhrelid
  WHERE parent.relkind IN ('r', 'p', 'f')
  UNION ALL
  SELECT 'everything', '', 'names', pg_catalog.quote_ident(p.proname)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND (
    EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprcode = p.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castfunc = p.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_amproc a WHERE a.amproc = p.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngsubdiff = p.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtfoid = p.oid))
) definitions
