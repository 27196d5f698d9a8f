-- What the transactions of the property test meet: plain things, and traps.
CREATE ROLE {role};
GRANT {role} TO CURRENT_USER;
CREATE TYPE mood AS ENUM ('calm', 'merry');
CREATE DOMAIN plain_name AS text;
CREATE TABLE items (n int PRIMARY KEY, t text, tags text[] DEFAULT '{a,b}', doc jsonb DEFAULT '{"a": 1}',
  m mood DEFAULT 'calm', called plain_name);
INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 5) i;
CREATE TABLE notes (id int PRIMARY KEY, item int REFERENCES items DEFERRABLE, body text);
INSERT INTO notes SELECT i, 1 + i % 5, 'note ' || i FROM generate_series(1, 8) i;
CREATE MATERIALIZED VIEW sums AS SELECT item, count(*) AS notes FROM notes GROUP BY item;
CREATE INDEX ON notes (lower(body));
CREATE TABLE parts (n int) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1), (2);
CREATE SEQUENCE counted;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role};

-- What calls itself harmless, and leaves a setting.
CREATE FUNCTION sets() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM set_config(''app.held'', ''by a function'', true); RETURN 1; END';
CREATE FUNCTION sets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM set_config(''app.held'', ''by a check'', true); RETURN true; END';
CREATE FUNCTION initcap(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.sets()';
CREATE FUNCTION total(items) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.sets()';
CREATE FUNCTION sets_by_operator(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.sets()';
CREATE FUNCTION sets_by_liking(mood, mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.sets($1::text)';
CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = sets_by_operator);
CREATE OPERATOR ~~* (LEFTARG = mood, RIGHTARG = mood, FUNCTION = sets_by_liking);
CREATE OPERATOR !!! (RIGHTARG = float8, FUNCTION = pg_catalog.setseed);
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO notes VALUES (99) ON CONFLICT DO NOTHING; SELECT 1';
CREATE DOMAIN checked AS text CHECK (sets(VALUE));
CREATE TABLE checks (c checked);
INSERT INTO checks VALUES ('x');
CREATE VIEW viewed AS SELECT n, sets() AS s FROM items;
CREATE TABLE guarded (n int);
INSERT INTO guarded VALUES (1);
CREATE POLICY guards ON guarded USING (sets('x'));
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;

-- What is behind a name that looks plain.
CREATE TABLE family (n int);
CREATE TABLE family_guarded () INHERITS (family);
ALTER TABLE family_guarded ENABLE ROW LEVEL SECURITY;
CREATE TABLE abroad (n int);
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE EXTENSION hstore;
CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw
  OPTIONS (host '127.0.0.1', port '{port}', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER itself OPTIONS (user '{user}', password_required 'false');
CREATE FOREIGN TABLE far (datname name) SERVER itself
  OPTIONS (schema_name 'pg_catalog', table_name 'pg_database');
CREATE FOREIGN TABLE abroad_far () INHERITS (abroad) SERVER itself
  OPTIONS (schema_name 'pg_catalog', table_name 'pg_database');
