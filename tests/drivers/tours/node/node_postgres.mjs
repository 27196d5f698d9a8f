// node-postgres (pg) with pg-cursor, pg-query-stream and pg-copy-streams.

import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import pg from "pg";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { address, alone, raised, run, sleep } from "./transcript.mjs";

function settings(seen, more = {}) {
  return {
    ...address,
    application_name: "tour of node-postgres",
    statement_timeout: 20000,
    lock_timeout: 15000,
    idle_in_transaction_session_timeout: 60000,
    options: `-c search_path=${seen.schema} -c TimeZone=Asia/Tokyo`,
    ...more,
  };
}

async function connected(seen, work, more) {
  const client = new pg.Client(settings(seen, more));
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

await run(async (seen) => {
  await connected(seen, async (c) => {
    await c.query(`drop schema if exists ${seen.schema} cascade; create schema ${seen.schema}`);
    await c.query("create table item(id int primary key, words text, more jsonb)");
  });
  for (const part of [
    session,
    statements,
    types,
    transactions,
    errors,
    cursors,
    copies,
    cancels,
    large,
    pools,
  ]) {
    await connected(seen, (c) => part(seen, c));
  }
});

async function session(seen, c) {
  const shown = {};
  c.connection.on("parameterStatus", (m) => (shown[m.parameterName] = m.parameterValue));
  for (const name of [
    "search_path",
    "TimeZone",
    "application_name",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_encoding",
  ]) {
    for (let turn = 0; turn < 2; turn++) seen.say(name, (await c.query(`show "${name}"`)).rows[0]);
  }
  await c.query("set application_name = 'other'");
  await c.query("set time zone 'Europe/Paris'");
  for (let turn = 0; turn < 3; turn++)
    seen.say(
      "changed",
      (await c.query("select current_setting('application_name') a, current_setting('TimeZone') z"))
        .rows[0],
    );
  seen.say("reported", shown);
}

async function statements(seen, c) {
  for (let turn = 0; turn < 8; turn++) {
    seen.say(
      "sum",
      (await c.query("select $1::int + 1 as sum, $2::text as words", [turn, "é"])).rows[0],
    );
    // The same name means something else to every client.
    seen.say(
      "named",
      (
        await c.query({
          name: "mine",
          text: `select $1::int * ${2} as n /* ${seen.schema} */`,
          values: [turn],
        })
      ).rows[0],
    );
    seen.say(
      "other",
      (
        await c.query({
          name: "of mine",
          text: "select $1::text as words",
          values: [`turn ${turn}`],
        })
      ).rows[0],
    );
  }
  await seen.fails("another text", c.query({ name: "mine", text: "select 1", values: [] }));
  const all = await Promise.all(
    Array.from({ length: 20 }, (_, n) => c.query("select $1::int as n", [n])),
  );
  seen.say(
    "queued",
    all.map((r) => r.rows[0].n),
  );
  const several = await c.query(
    "select 1 as a; select 2 as b where false; insert into item(id) values (1)",
  );
  seen.say(
    "several",
    several.map((r) => [r.command, r.rowCount, r.rows]),
  );
  const result = await c.query({
    text: "select id, words as w from item where id = $1",
    values: [1],
    rowMode: "array",
  });
  seen.say(
    "described",
    result.fields.map((f) => [f.name, f.dataTypeID, f.format]),
    result.rows,
    result.command,
    result.rowCount,
  );
  seen.say("empty", (await c.query("")).command, (await c.query(";")).rowCount);
  const none = await c.query("update item set words = 'x' where false");
  seen.say("none", none.command, none.rowCount);
  seen.say(
    "binary",
    (
      await c.query({
        text: "select $1::int as n, $2::bytea as b",
        values: [7, Buffer.from([0, 255])],
        binary: true,
      })
    ).rows[0],
  );
}

async function types(seen, c) {
  await c.query("create type mood as enum ('calm', 'busy')");
  const values = [
    ["int", 1],
    ["int8", "9007199254740993"],
    ["numeric", "1.20"],
    ["float8", 1.5],
    ["bool", true],
    ["text", "é 🐘"],
    ["bytea", Buffer.from([0, 1, 255])],
    ["date", "2026-11-21"],
    ["timestamptz", new Date(0)],
    ["interval", "1 day 2 hours"],
    ["int[]", [1, null, 3]],
    ["text[]", ["a", 'b"', "{"]],
    ["jsonb", { a: [1, null] }],
    ["int4range", "[1,5)"],
    ["uuid", "00000000-0000-0000-0000-000000000007"],
    ["mood", "busy"],
    ["mood[]", "{calm}"],
    ["text", null],
    ["point", "(1,2)"],
  ];
  for (const [type, value] of values)
    seen.say(type, (await c.query(`select $1::${type} as v`, [value])).rows[0]);
}

async function transactions(seen, c) {
  for (const begin of [
    "begin",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    "start transaction isolation level repeatable read",
  ]) {
    await c.query(begin);
    seen.say(
      begin,
      (
        await c.query(
          "select current_setting('transaction_isolation') i, current_setting('transaction_read_only') r",
        )
      ).rows[0],
    );
    await c.query("commit");
  }
  await c.query("begin");
  await c.query("insert into item(id) values (100)");
  await c.query("savepoint one");
  await seen.fails("twice", c.query("insert into item(id) values ($1)", [100]));
  await seen.fails("failed", c.query("select $1::int", [1]));
  await c.query("rollback to savepoint one");
  await c.query("insert into item(id) values (101)");
  seen.say("commit", (await c.query("commit")).command);
  seen.say("kept", (await c.query("select id from item where id >= 100 order by id")).rows);
  await c.query("begin");
  await seen.fails("error", c.query("select 1/0"));
  seen.say("commit of a failed one", (await c.query("commit")).command);
}

async function errors(seen, c) {
  const heard = [];
  c.on("notice", (n) => heard.push([n.severity, n.code, n.message, n.hint]));
  for (const text of [
    "select * from absent",
    "selec",
    "select 1/0",
    "insert into item(id) values (null)",
    "do $$ begin raise exception 'mine' using hint = 'h', errcode = 'AB123'; end $$",
  ]) {
    await seen.fails("simple", c.query(text));
    await seen.fails("extended", c.query({ text, values: [], queryMode: "extended" }));
    await seen.fails("named", c.query({ name: text.slice(0, 20), text }));
    seen.say("well", (await c.query("select $1::int as n", [1])).rows);
  }
  await seen.fails("bad value", c.query("select $1::int", ["x"]));
  await seen.fails("too few", c.query("select $1::int, $2::int", [1]));
  await c.query("do $$ begin raise notice 'one'; raise warning 'two' using hint = 'h'; end $$");
  seen.say("heard", heard);
}

async function cursors(seen, c) {
  await c.query("begin");
  const cursor = c.query(new Cursor("select g from generate_series(1, $1) g", [100]));
  seen.say(
    "read",
    (await cursor.read(3)).length,
    (await cursor.read(50)).length,
    (await cursor.read(1000)).length,
    (await cursor.read(1)).length,
  );
  await cursor.close();
  await c.query("commit");
  // Outside of a transaction a portal lives until the Sync, which pg-cursor sends at the end.
  const other = c.query(new Cursor("select g from generate_series(1, $1) g", [100]));
  seen.say("portal", (await other.read(10)).length);
  await sleep(10);
  seen.say("later", (await other.read(10))[0]);
  await other.close();
  seen.say("closed", (await c.query("select 1 as n")).rows);
  let total = 0;
  for await (const row of c.query(
    new QueryStream("select g from generate_series(1, $1) g", [700], { batchSize: 50 }),
  ))
    total += row.g;
  seen.say("streamed", total);
  let some = 0;
  for await (const row of c.query(
    new QueryStream("select g from generate_series(1, 700) g", [], { batchSize: 10 }),
  )) {
    some += row.g;
    if (row.g === 25) break;
  }
  seen.say("broken off", some, (await c.query("select 2 as n")).rows);
}

async function copies(seen, c) {
  await c.query("create table bulk(n int, words text)");
  const rows = Array.from({ length: 3000 }, (_, n) => `${n}\trow ${n}\n`);
  await pipeline(Readable.from(rows), c.query(copyFrom("copy bulk from stdin")));
  let bytes = 0;
  for await (const block of c.query(
    copyTo("copy (select * from bulk order by n) to stdout with csv"),
  ))
    bytes += block.length;
  seen.say("bytes", bytes, (await c.query("select count(*) from bulk")).rows);
  await seen.fails(
    "broken",
    pipeline(Readable.from(["x\ty\n".repeat(2000)]), c.query(copyFrom("copy bulk from stdin"))),
  );
  seen.say("well", (await c.query("select count(*) from bulk")).rows);
}

async function cancels(seen, c) {
  await c.query("set statement_timeout = 60");
  await seen.fails("statement_timeout", c.query("select pg_sleep(20)"));
  await c.query("set statement_timeout = 20000");
  const { rows } = await c.query("select 1 as n");
  seen.say("well", rows);
  await alone(() =>
    connected(seen, async (other) => {
      await other.query("begin; lock table item");
      await c.query("set lock_timeout = 50");
      await seen.fails("lock_timeout", c.query("select * from item"));
      await other.query("rollback");
    }),
  );
  const stopped = seen.fails("cancelled", c.query("select pg_sleep(20)"));
  await sleep(100);
  await new Promise((done) => {
    const canceller = new pg.Client(settings(seen));
    canceller.cancel(c, c.activeQuery ?? c._activeQuery);
    canceller.connection.on("end", done);
    canceller.connection.on("error", done);
  });
  await stopped;
  seen.say("usable", (await c.query("select 2 as n")).rows);
  await connected(seen, async (impatient) => {
    try {
      await impatient.query({ text: "select pg_sleep(0.3)", query_timeout: 100 });
    } catch (error) {
      seen.say("query_timeout", raised(error));
    }
    // The driver waits no longer, but the statement is not cancelled.
    seen.say("after it", (await impatient.query("select 3 as n")).rows);
  });
}

async function large(seen, c) {
  const text = "é".repeat(1 << 20);
  seen.say(
    "text",
    (await c.query("select $1::text = repeat('é', 1 << 20) as same, length($1::text)", [text]))
      .rows,
  );
  const block = Buffer.alloc(3 << 20, 7);
  seen.say("bytes", (await c.query("select $1::bytea as b", [block])).rows[0].b.equals(block));
  seen.say(
    "rows",
    (await c.query("select g, repeat('y', 1000) as y from generate_series(1, 3000) g")).rows.length,
  );
}

async function pools(seen) {
  const pool = new pg.Pool(settings(seen, { max: 3, maxUses: 20, idleTimeoutMillis: 1000 }));
  const sums = await Promise.all(
    Array.from({ length: 40 }, (_, n) => pool.query("select $1::int as n", [n])),
  );
  seen.say(
    "pool",
    sums.reduce((sum, r) => sum + r.rows[0].n, 0),
  );
  const client = await pool.connect();
  await client.query("begin");
  await client.query("insert into item(id) values (500)");
  await client.query("rollback");
  client.release();
  seen.say("rolled back", (await pool.query("select count(*) from item where id = 500")).rows);
  const dropped = await pool.connect();
  await dropped.query("begin");
  await dropped.query("insert into item(id) values (501)");
  dropped.release(true);
  await sleep(20);
  seen.say("dropped", (await pool.query("select count(*) from item where id = 501")).rows);
  await pool.end();
}
