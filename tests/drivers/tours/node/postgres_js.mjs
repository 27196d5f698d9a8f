// postgres.js: everything is a named statement, deep pipelines, COMMIT included.

import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import postgres from "postgres";
import { address, raised, run, sleep } from "./transcript.mjs";

function connect(seen, more = {}) {
  return postgres({
    ...address,
    username: address.user,
    max: 2,
    connection: {
      search_path: seen.schema,
      statement_timeout: 20000,
      TimeZone: "Asia/Tokyo",
      ...(more.connection ?? {}),
    },
    onnotice: (notice) => (seen.heard ??= []).push([notice.severity, notice.message]),
    ...more.options,
  });
}

await run(async (seen) => {
  const sql = connect(seen);
  await sql.unsafe(`drop schema if exists ${seen.schema} cascade`);
  await sql.unsafe(`create schema ${seen.schema}`);
  await sql`create table item(id int primary key, words text, tags text[], more jsonb, at timestamptz)`;
  for (const part of [session, statements, types, transactions, errors, streams, cancels, others])
    await part(seen, sql);
  await sql.end();
});

async function session(seen, sql) {
  for (let turn = 0; turn < 3; turn++) {
    const [row] =
      await sql`select current_setting('search_path') p, current_setting('statement_timeout') t, current_setting('TimeZone') z, current_setting('application_name') a`;
    seen.say("settings", row);
  }
}

async function statements(seen, sql) {
  for (let turn = 0; turn < 6; turn++) {
    seen.say("sum", await sql`select ${turn}::int + 1 as sum, ${"é"} as words`);
    seen.say(
      "many at once",
      (await Promise.all(Array.from({ length: 15 }, (_, n) => sql`select ${n}::int as n`))).map(
        ([r]) => r.n,
      ),
    );
  }
  const items = Array.from({ length: 50 }, (_, n) => ({
    id: n,
    words: `row ${n}`,
    tags: ["a", `b${n}`],
    more: { n },
  }));
  seen.say(
    "inserted",
    (await sql`insert into item ${sql(items, "id", "words", "tags", "more")} returning id`).length,
  );
  seen.say(
    "in",
    await sql`select id, tags, more from item where id in ${sql([1, 2, 3])} order by id`,
  );
  seen.say("updated", (await sql`update item set ${sql({ words: "new" })} where id < 5`).count);
  seen.say("simple", await sql`select 1 as a; select 2 as b`.simple());
  seen.say(
    "unsafe",
    await sql.unsafe("select $1::int as n", [3]),
    await sql.unsafe("select 4 as n", [], { prepare: true }),
  );
  seen.say(
    "values",
    await sql`select id, words from item order by id limit 2`.values(),
    await sql`select 1 as a`.raw(),
  );
  const described = await sql`select id, words from item where id = ${1}`.describe();
  seen.say(
    "described",
    described.types,
    described.columns.map((c) => [c.name, c.type]),
  );
}

async function types(seen, sql) {
  await sql`create type mood as enum ('calm', 'busy')`;
  for (const [type, value] of [
    ["int", 1],
    ["int8", "9007199254740993"],
    ["numeric", "1.20"],
    ["bool", true],
    ["text", "é 🐘"],
    ["jsonb", { a: [1] }],
    ["int[]", [1, 2]],
    ["date", "2026-11-21"],
    ["uuid", "00000000-0000-0000-0000-000000000007"],
    ["mood", "busy"],
    ["text", null],
  ])
    seen.say(type, await sql`select ${value}::${sql.unsafe(type)} as v`);
  seen.say("bytes", [...(await sql`select ${Buffer.from([0, 255])}::bytea as b`)[0].b]);
}

async function transactions(seen, sql) {
  const answer = await sql.begin(async (tx) => {
    await tx`insert into item(id) values (100)`;
    await tx
      .savepoint((inner) => inner`insert into item(id) values (100)`)
      .catch((error) => seen.say("inner", raised(error)));
    return await tx`select count(*)::int as n from item where id >= 100`;
  });
  seen.say("answer", answer);
  seen.say(
    "isolation",
    await sql.begin(
      "isolation level serializable read only",
      (tx) => tx`show transaction_isolation`,
    ),
  );
  await seen.fails(
    "thrown",
    sql.begin(async (tx) => {
      await tx`insert into item(id) values (101)`;
      throw new Error("the application gave up");
    }),
  );
  seen.say(
    "list",
    await sql.begin((tx) => [
      tx`select 1 as a`,
      tx`insert into item(id) values (102)`,
      tx`select 3 as b`,
    ]),
  );
  await seen.fails(
    "list fails",
    sql.begin((tx) => [tx`insert into item(id) values (103)`, tx`select 1/0`, tx`select 3 as b`]),
  );
  seen.say("kept", await sql`select id from item where id >= 100 order by id`);
  const reserved = await sql.reserve();
  await reserved`begin`;
  await reserved`insert into item(id) values (104)`;
  await reserved`rollback`;
  reserved.release();
  seen.say("reserved", await sql`select count(*)::int as n from item where id = 104`);
}

async function errors(seen, sql) {
  for (const text of [
    "select * from absent",
    "selec",
    "select 1/0",
    "insert into item(id) values (null)",
  ]) {
    await seen.fails("error", sql.unsafe(text));
    await seen.fails("prepared", sql.unsafe(text, [], { prepare: true }));
    seen.say("well", await sql`select ${1}::int as n`);
  }
  await seen.fails("bad value", sql`select ${"x"}::int`);
  const ends = await Promise.allSettled([
    sql`select 1 as a`,
    sql`select 1/${0}::int`,
    sql`select 3 as c`,
  ]);
  seen.say(
    "together",
    ends.map((e) => e.status),
  );
  await sql`drop table if exists absent`;
  seen.say("heard", seen.heard);
}

async function streams(seen, sql) {
  let total = 0;
  for await (const rows of sql`select g from generate_series(1, 500) g`.cursor(40))
    total += rows.reduce((sum, r) => sum + r.g, 0);
  seen.say("cursor", total);
  let some = 0;
  await sql`select g from generate_series(1, 500) g`.cursor(10, (rows) => {
    some += rows.length;
    if (some >= 30) return sql.CLOSE;
  });
  seen.say("closed", some);
  let each = 0;
  await sql`select g from generate_series(1, 300) g`.forEach((row) => (each += row.g));
  seen.say("each", each);
  await sql`create table bulk(n int, words text)`;
  const writable = await sql`copy bulk from stdin`.writable();
  await pipeline(
    Readable.from(Array.from({ length: 2000 }, (_, n) => `${n}\trow ${n}\n`)),
    writable,
  );
  let bytes = 0;
  for await (const block of await sql`copy bulk to stdout`.readable()) bytes += block.length;
  seen.say("copied", bytes, await sql`select count(*)::int as n from bulk`);
}

async function cancels(seen) {
  const sql = connect(seen);
  await sql`select 1`;
  for (let turn = 0; turn < 2; turn++) {
    const sleeping = sql`select pg_sleep(20)`.execute();
    await sleep(120);
    const stopped = seen.fails("cancelled", sleeping);
    sleeping.cancel();
    await stopped;
    seen.say("usable", await sql`select ${turn}::int as n`);
  }
  await sql.end();
}

async function others(seen) {
  const plain = connect(seen, {
    options: { prepare: false, fetch_types: false, idle_timeout: 1, max_lifetime: 2 },
  });
  for (let turn = 0; turn < 4; turn++)
    seen.say("unprepared", await plain`select ${turn}::int as n`);
  await plain.end();
}
