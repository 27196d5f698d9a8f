// pgx v4 with its pool, and lib/pq under database/sql; see ../transcript.py for what a tour is.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
	"github.com/lib/pq"
)

var background = context.Background()

type transcript struct {
	number int
	schema string
	steps  []string
}

func (seen *transcript) say(step string, values ...interface{}) {
	text := step + ":"
	for _, value := range values {
		text += fmt.Sprintf(" %v", value)
	}
	seen.steps = append(seen.steps, strings.ReplaceAll(text, seen.schema, "SCHEMA"))
}

func (seen *transcript) fails(step string, err error) {
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case err == nil:
		seen.say(step, "was not refused")
	case errors.As(err, &ofPgx):
		seen.say(step, ofPgx.Severity, ofPgx.Code, ofPgx.Message, ofPgx.Detail, ofPgx.Position)
	case errors.As(err, &ofPq):
		seen.say(step, ofPq.Severity, ofPq.Code, ofPq.Message, ofPq.Detail, ofPq.Position)
	default:
		seen.say(step, strings.Split(err.Error(), ":")[0])
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func dsn(seen *transcript, more string) string {
	password := strings.ReplaceAll(strings.ReplaceAll(os.Getenv("PGPASSWORD"), `\`, `\\`), `'`, `\'`)
	return fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s search_path=%s application_name='tour of go' statement_timeout=20000 sslmode=disable %s",
		os.Getenv("PGHOST"), os.Getenv("PGPORT"), os.Getenv("PGUSER"), password, os.Getenv("PGDATABASE"), seen.schema, more)
}

func main() {
	clients, err := strconv.Atoi(os.Getenv("TOUR_CLIENTS"))
	must(err)
	tours := map[string]func(*transcript){"pgx": tourOfPgx, "pq": tourOfPq}
	all := make([]*transcript, clients)
	var running sync.WaitGroup
	for n := range all {
		seen := &transcript{number: n, schema: fmt.Sprintf("%s_%d", os.Getenv("TOUR_SCHEMA"), n)}
		all[n] = seen
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() {
				if trouble := recover(); trouble != nil {
					fmt.Fprintln(os.Stderr, trouble)
					seen.say("ended by", trouble)
				}
			}()
			tours[os.Args[1]](seen)
		}()
	}
	running.Wait()
	steps := make([][]string, clients)
	for n, seen := range all {
		steps[n] = seen.steps
	}
	must(json.NewEncoder(os.Stdout).Encode(steps))
}

func tourOfPgx(seen *transcript) {
	c, err := pgx.Connect(background, dsn(seen, ""))
	must(err)
	defer c.Close(background)
	_, err = c.Exec(background, fmt.Sprintf("drop schema if exists %s cascade; create schema %s", seen.schema, seen.schema))
	must(err)
	_, err = c.Exec(background, "create table item(id int primary key, words text, more jsonb, tags text[], at timestamptz)")
	must(err)
	for turn := 0; turn < 6; turn++ {
		for n := 0; n < 4; n++ {
			var sum int
			must(c.QueryRow(background, fmt.Sprintf("select $1::int + %d", n), turn).Scan(&sum))
			seen.say("sum", sum)
		}
		var path, name string
		must(c.QueryRow(background, "select current_setting('search_path'), current_setting('application_name')").Scan(&path, &name))
		seen.say("settings", path, name)
	}
	_, err = c.Prepare(background, "mine", "select $1::text || $2::text")
	must(err)
	for turn := 0; turn < 4; turn++ {
		var words string
		must(c.QueryRow(background, "mine", "é", strconv.Itoa(turn)).Scan(&words))
		seen.say("prepared", words)
	}
	must(c.Deallocate(background, "mine"))
	for _, text := range []string{"select * from absent", "selec", "select 1/0", "insert into item(id) values (null)"} {
		_, err = c.Exec(background, text)
		seen.fails("simple", err)
		_, err = c.Exec(background, text+" -- $1", pgx.QuerySimpleProtocol(true))
		seen.fails("by choice", err)
	}
	// Types, in binary form.
	tag, err := c.Exec(background, "insert into item values ($1, $2, $3, $4, $5)", 1, "one", map[string]int{"a": 1}, []string{"x", "y"}, time.Unix(0, 0))
	must(err)
	seen.say("inserted", tag)
	var more map[string]int
	var tags []string
	var at time.Time
	must(c.QueryRow(background, "select more, tags, at from item where id = $1", 1).Scan(&more, &tags, &at))
	seen.say("types", more, tags, at.UTC())
	// Transactions.
	for _, options := range []pgx.TxOptions{{}, {IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable}, {IsoLevel: pgx.RepeatableRead}} {
		tx, err := c.BeginTx(background, options)
		must(err)
		var level, only string
		must(tx.QueryRow(background, "select current_setting('transaction_isolation'), current_setting('transaction_read_only')").Scan(&level, &only))
		seen.say("transaction", level, only)
		must(tx.Commit(background))
	}
	tx, err := c.Begin(background)
	must(err)
	_, err = tx.Exec(background, "insert into item(id) values ($1)", 2)
	must(err)
	inner, err := tx.Begin(background)
	must(err)
	_, err = inner.Exec(background, "insert into item(id) values ($1)", 2)
	seen.fails("unique", err)
	must(inner.Rollback(background))
	must(tx.Commit(background))
	tx, err = c.Begin(background)
	must(err)
	_, err = tx.Exec(background, "select 1/0")
	seen.fails("failed", err)
	seen.fails("commit of a failed one", tx.Commit(background))
	// A batch is one pipeline.
	for turn := 0; turn < 4; turn++ {
		batch := &pgx.Batch{}
		for n := 0; n < 10; n++ {
			batch.Queue("select $1::int * 3", n)
		}
		batch.Queue("insert into item(id) values ($1) returning id", 100+turn)
		results := c.SendBatch(background, batch)
		total := 0
		for n := 0; n < 11; n++ {
			var one int
			must(results.QueryRow().Scan(&one))
			total += one
		}
		must(results.Close())
		seen.say("batch", total)
	}
	batch := &pgx.Batch{}
	batch.Queue("insert into item(id) values ($1)", 200)
	batch.Queue("insert into item(id) values ($1)", 200)
	seen.fails("batch fails", c.SendBatch(background, batch).Close())
	var count int
	must(c.QueryRow(background, "select count(*) from item where id >= 200").Scan(&count))
	seen.say("none", count)
	// COPY.
	rows := make([][]interface{}, 1000)
	for n := range rows {
		rows[n] = []interface{}{1000 + n, fmt.Sprintf("row %d", n)}
	}
	copied, err := c.CopyFrom(background, pgx.Identifier{"item"}, []string{"id", "words"}, pgx.CopyFromRows(rows))
	must(err)
	seen.say("copied", copied)
	_, err = c.CopyFrom(background, pgx.Identifier{"item"}, []string{"id", "words"}, pgx.CopyFromRows(rows[:5]))
	seen.fails("copied twice", err)
	var out strings.Builder
	done, err := c.PgConn().CopyTo(background, &out, "copy (select id from item order by id) to stdout")
	must(err)
	seen.say("out", done, out.Len())
	// A context that ends closes the connection and cancels the query.
	impatient, err := pgx.Connect(background, dsn(seen, ""))
	must(err)
	short, stop := context.WithTimeout(background, 200*time.Millisecond)
	_, err = impatient.Exec(short, "select pg_sleep(20)")
	stop()
	seen.say("timed out", err != nil, impatient.IsClosed())
	// Cancel by hand.
	go func() {
		time.Sleep(200 * time.Millisecond)
		_ = c.PgConn().CancelRequest(background)
	}()
	_, err = c.Exec(background, "select pg_sleep(20)")
	seen.fails("cancelled", err)
	time.Sleep(50 * time.Millisecond)
	must(c.QueryRow(background, "select 7").Scan(&count))
	seen.say("usable", count)
	// DDL under a cached statement.
	large := strings.Repeat("é", 1<<20)
	var same bool
	must(c.QueryRow(background, "select $1::text = repeat('é', 1 << 20)", large).Scan(&same))
	seen.say("large", same)
	pool, err := pgxpool.Connect(background, dsn(seen, "pool_max_conns=3"))
	must(err)
	var working sync.WaitGroup
	var lock sync.Mutex
	total := 0
	for n := 0; n < 40; n++ {
		working.Add(1)
		go func(n int) {
			defer working.Done()
			var one int
			must(pool.QueryRow(background, "select $1::int", n).Scan(&one))
			lock.Lock()
			total += one
			lock.Unlock()
		}(n)
	}
	working.Wait()
	seen.say("pool", total)
	must(pool.BeginFunc(background, func(tx pgx.Tx) error {
		_, err := tx.Exec(background, "insert into item(id) values (5000)")
		return err
	}))
	pool.Close()
}

func tourOfPq(seen *transcript) {
	db, err := sql.Open("postgres", dsn(seen, ""))
	must(err)
	db.SetMaxOpenConns(3)
	defer db.Close()
	_, err = db.Exec(fmt.Sprintf("drop schema if exists %s cascade; create schema %s", seen.schema, seen.schema))
	must(err)
	_, err = db.Exec("create table item(id int primary key, words text, tags text[])")
	must(err)
	must(db.Ping())
	prepared, err := db.Prepare("select $1::int * 2, current_setting('search_path')")
	must(err)
	for turn := 0; turn < 8; turn++ {
		var n int
		var words, path string
		must(db.QueryRow("select $1::int + 1, $2::text", turn, "é").Scan(&n, &words))
		seen.say("sum", n, words)
		must(prepared.QueryRow(turn).Scan(&n, &path))
		seen.say("prepared", n, path)
	}
	must(prepared.Close())
	for _, text := range []string{"select * from absent", "selec", "select 1/0", "insert into item(id) values (null)"} {
		_, err = db.Exec(text)
		seen.fails("simple", err)
		_, err = db.Exec(text+" -- ", []interface{}{}...)
		seen.fails("again", err)
		_, err = db.Query("select $1::int / 0", 1)
		seen.fails("with a parameter", err)
	}
	_, err = db.Exec("insert into item values ($1, $2, $3)", 1, "one", pq.Array([]string{"a", "b"}))
	must(err)
	var tags []string
	must(db.QueryRow("select tags from item where id = $1", 1).Scan(pq.Array(&tags)))
	seen.say("array", tags)
	for _, options := range []*sql.TxOptions{nil, {Isolation: sql.LevelSerializable, ReadOnly: true}} {
		tx, err := db.BeginTx(background, options)
		must(err)
		var level, only string
		must(tx.QueryRow("select current_setting('transaction_isolation'), current_setting('transaction_read_only')").Scan(&level, &only))
		seen.say("transaction", level, only)
		must(tx.Commit())
	}
	tx, err := db.Begin()
	must(err)
	_, err = tx.Exec("insert into item(id) values ($1)", 1)
	seen.fails("unique", err)
	_, err = tx.Exec("select 1")
	seen.fails("failed", err)
	must(tx.Rollback())
	tx, err = db.Begin()
	must(err)
	in, err := tx.Prepare(pq.CopyIn("item", "id", "words"))
	must(err)
	for n := 0; n < 1000; n++ {
		_, err = in.Exec(1000+n, fmt.Sprintf("row %d", n))
		must(err)
	}
	_, err = in.Exec()
	must(err)
	must(in.Close())
	must(tx.Commit())
	var count int
	must(db.QueryRow("select count(*) from item where id >= 1000").Scan(&count))
	seen.say("copied", count)
	rows, err := db.Query("select g from generate_series(1, $1) g", 500)
	must(err)
	total := 0
	for rows.Next() {
		var g int
		must(rows.Scan(&g))
		total += g
	}
	seen.say("rows", total, rows.Err())
	for turn := 0; turn < 2; turn++ {
		short, stop := context.WithTimeout(background, 200*time.Millisecond)
		_, err = db.ExecContext(short, "select pg_sleep(20)")
		stop()
		seen.fails("cancelled", err)
		must(db.QueryRow("select $1::int", turn).Scan(&count))
		seen.say("usable", count)
	}
	var working sync.WaitGroup
	var lock sync.Mutex
	total = 0
	for n := 0; n < 40; n++ {
		working.Add(1)
		go func(n int) {
			defer working.Done()
			var one int
			must(db.QueryRow("select $1::int", n).Scan(&one))
			lock.Lock()
			total += one
			lock.Unlock()
		}(n)
	}
	working.Wait()
	seen.say("pool", total)
}
