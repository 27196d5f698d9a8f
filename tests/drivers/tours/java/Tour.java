import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import javax.sql.XAConnection;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.postgresql.PGConnection;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGobject;
import org.postgresql.xa.PGXADataSource;

/** pgjdbc and HikariCP; see ../transcript.py for what a tour is. */
public class Tour {

    static final Map<String, String> ENV = System.getenv();

    final int number;
    final String schema;
    final List<String> steps = new ArrayList<>();

    Tour(int number) {
        this.number = number;
        schema = ENV.get("TOUR_SCHEMA") + "_" + number;
    }

    interface Work {
        void run() throws Exception;
    }

    void say(String step, Object... seen) {
        StringBuilder text = new StringBuilder(step + ":");
        for (Object one : seen) text.append(' ').append(one);
        steps.add(text.toString().replace(schema, "SCHEMA"));
    }

    void fails(String step, Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException error) {
            say(step, error.getSQLState(), error.getMessage());
            return;
        }
        say(step, "was not refused");
    }

    static String url() {
        return (
            "jdbc:postgresql://" +
            ENV.get("PGHOST") +
            ":" +
            ENV.get("PGPORT") +
            "/" +
            ENV.get("PGDATABASE")
        );
    }

    Properties properties(String... more) {
        Properties p = new Properties();
        p.setProperty("user", ENV.get("PGUSER"));
        p.setProperty("password", ENV.get("PGPASSWORD"));
        p.setProperty("ApplicationName", "tour of pgjdbc");
        p.setProperty("currentSchema", schema);
        p.setProperty("options", "-c statement_timeout=20s");
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        return p;
    }

    Connection connect(String... more) throws SQLException {
        return DriverManager.getConnection(url(), properties(more));
    }

    Object value(Connection c, String text, Object... arguments) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(text)) {
            for (int i = 0; i < arguments.length; i++) s.setObject(i + 1, arguments[i]);
            try (ResultSet rows = s.executeQuery()) {
                return rows.next() ? rows.getObject(1) : "none";
            }
        }
    }

    void take() throws Exception {
        try (Connection c = connect(); Statement s = c.createStatement()) {
            s.execute("drop schema if exists " + schema + " cascade; create schema " + schema);
            s.execute("create table item(id serial primary key, n int unique, words text)");
        }
        for (String mode : List.of(
            "extended",
            "simple",
            "extendedForPrepared",
            "extendedCacheEverything"
        )) {
            try (Connection c = connect("preferQueryMode", mode)) {
                say("mode", mode);
                statements(c);
            }
        }
        try (Connection c = connect()) {
            session(c);
        }
        try (Connection c = connect()) {
            transactions(c);
        }
        for (String autosave : List.of("never", "always", "conservative")) {
            try (Connection c = connect("autosave", autosave)) {
                saved(autosave, c);
            }
        }
        try (Connection c = connect("reWriteBatchedInserts", "true")) {
            batches(c);
        }
        try (Connection c = connect("defaultRowFetchSize", "40")) {
            cursors(c);
        }
        try (Connection c = connect()) {
            types(c);
        }
        try (Connection c = connect()) {
            copies(c);
        }
        try (Connection c = connect()) {
            cancels(c);
        }
        try (Connection c = connect()) {
            catalog(c);
        }
        twoPhases();
        pool();
    }

    void session(Connection c) throws Exception {
        for (int turn = 0; turn < 3; turn++) {
            for (String name : List.of(
                "search_path",
                "application_name",
                "statement_timeout",
                "extra_float_digits",
                "DateStyle"
            )) {
                say(name, value(c, "show " + name));
            }
        }
        c.setClientInfo("ApplicationName", "renamed");
        c.setSchema("pg_catalog");
        for (int turn = 0; turn < 3; turn++) say(
            "renamed",
            value(c, "show application_name"),
            c.getSchema()
        );
        say("valid", c.isValid(5), c.getMetaData().getDatabaseProductName());
        for (int level : new int[] {
            Connection.TRANSACTION_SERIALIZABLE,
            Connection.TRANSACTION_REPEATABLE_READ,
            Connection.TRANSACTION_READ_COMMITTED,
        }) {
            c.setTransactionIsolation(level);
            c.setReadOnly(level == Connection.TRANSACTION_SERIALIZABLE);
            for (int turn = 0; turn < 2; turn++) say(
                "isolation",
                value(c, "show transaction_isolation"),
                value(c, "show transaction_read_only"),
                c.getTransactionIsolation()
            );
        }
        c.setReadOnly(false);
        c.setAutoCommit(false);
        c.setReadOnly(true);
        say("read only", value(c, "show transaction_read_only"));
        c.rollback();
    }

    void statements(Connection c) throws Exception {
        for (int turn = 0; turn < 8; turn++) {
            say(
                "sum",
                value(c, "select ?::int + 1", turn),
                value(c, "select ?::text || 'é'", "x" + turn)
            );
            for (int n = 0; n < 3; n++) say("other", value(c, "select ?::int * " + n, turn));
        }
        try (
            PreparedStatement s = c.prepareStatement(
                "select ?::int, ?::text, now() > '2020-01-01'::timestamptz"
            )
        ) {
            for (int turn = 0; turn < 9; turn++) {
                s.setInt(1, turn);
                s.setString(2, "words");
                try (ResultSet rows = s.executeQuery()) {
                    rows.next();
                    say("kept", rows.getInt(1), rows.getString(2), rows.getBoolean(3));
                }
            }
        }
        try (Statement s = c.createStatement()) {
            boolean more = s.execute(
                "select 1; select 2 where false; insert into item(n) values (null); select 3"
            );
            int results = 0;
            while (more || s.getUpdateCount() != -1) {
                results++;
                more = s.getMoreResults();
            }
            say("several", results);
            s.execute("");
            say(
                "generated",
                s.executeUpdate(
                    "insert into item(words) values ('g')",
                    Statement.RETURN_GENERATED_KEYS
                )
            );
            s.execute("do $$ begin raise notice 'heard'; raise warning 'warned'; end $$");
            say("warnings", s.getWarnings(), s.getWarnings().getNextWarning());
        }
        fails("bad", () -> value(c, "select ?::int / 0", 1));
        fails("syntax", () -> value(c, "selec 1"));
        say("well", value(c, "select ?::int", 1));
    }

    void transactions(Connection c) throws Exception {
        c.setAutoCommit(false);
        for (int turn = 0; turn < 8; turn++) {
            value(c, "insert into item(n) values (?) returning n", 100 + turn);
            c.commit();
        }
        Savepoint point = c.setSavepoint("one");
        fails("unique", () -> value(c, "insert into item(n) values (?) returning n", 100));
        fails("failed", () -> value(c, "select 1"));
        c.rollback(point);
        say("usable", value(c, "select 1"));
        c.releaseSavepoint(point);
        c.rollback();
        fails("fails", () -> value(c, "select 1/0"));
        c.commit();
        say("rows", value(c, "select count(*) from item where n >= 100"));
        c.rollback();
        c.setAutoCommit(true);
        say("autocommit", value(c, "select count(*) from item where n >= 100"));
    }

    void saved(String autosave, Connection c) throws Exception {
        c.setAutoCommit(false);
        for (int turn = 0; turn < 7; turn++) say("before", value(c, "select ?::int", turn));
        fails("error", () -> value(c, "select ?::int / 0", 1));
        fails(autosave, () -> say("after", value(c, "select ?::int", 5)));
        c.rollback();
    }

    void batches(Connection c) throws Exception {
        try (
            PreparedStatement s = c.prepareStatement(
                "insert into item(n, words) values (?, ?)",
                Statement.RETURN_GENERATED_KEYS
            )
        ) {
            for (int n = 0; n < 200; n++) {
                s.setInt(1, 1000 + n);
                s.setString(2, "row");
                s.addBatch();
            }
            say("batch", s.executeBatch().length);
            int keys = 0;
            try (ResultSet rows = s.getGeneratedKeys()) {
                while (rows.next()) keys++;
            }
            say("keys", keys);
            for (int n : new int[] { 2000, 2001, 1000, 2002 }) {
                s.setInt(1, n);
                s.setString(2, "row");
                s.addBatch();
            }
            fails("batch fails", s::executeBatch);
        }
        say("none", value(c, "select count(*) from item where n >= 2000"));
        try (Statement s = c.createStatement()) {
            s.addBatch("insert into item(n) values (3000)");
            s.addBatch("update item set words = 'new' where n = 3000");
            s.addBatch("delete from item where n = 3000");
            say("texts", Arrays.toString(s.executeBatch()));
        }
    }

    void cursors(Connection c) throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("select g from generate_series(1, ?) g")) {
            for (int turn = 0; turn < 6; turn++) {
                s.setInt(1, 300 + turn);
                long total = 0;
                try (ResultSet rows = s.executeQuery()) {
                    while (rows.next()) {
                        total += rows.getInt(1);
                        if (rows.getInt(1) == 50) say("between", value(c, "select 7"));
                    }
                }
                say("portal", total);
                if (turn % 2 == 0) c.commit();
            }
        }
        c.commit();
        try (
            Statement s = c.createStatement(
                ResultSet.TYPE_SCROLL_INSENSITIVE,
                ResultSet.CONCUR_UPDATABLE
            );
            ResultSet rows = s.executeQuery("select id, n from item order by id limit 20")
        ) {
            rows.last();
            say("scrolled", rows.getRow());
            rows.first();
            rows.updateInt("n", -1);
            rows.updateRow();
        }
        c.rollback();
    }

    void types(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("create type mood as enum ('calm', 'busy')");
        }
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"a\": [1, null]}");
        Object[] values = {
            1,
            1L << 40,
            1.5,
            new java.math.BigDecimal("1.20"),
            true,
            "é 🐘",
            json,
            UUID.fromString("00000000-0000-0000-0000-000000000007"),
            java.time.LocalDate.of(2026, 11, 21),
            java.time.OffsetDateTime.of(2026, 11, 21, 1, 2, 3, 0, java.time.ZoneOffset.UTC),
            c.createArrayOf("int4", new Integer[] { 1, null, 3 }),
            c.createArrayOf("text", new String[] { "a", "{\"" }),
        };
        for (Object one : values) {
            for (int turn = 0; turn < 7; turn++) {
                Object back = value(c, "select ?", one);
                if (turn % 3 == 0) say("value", back);
            }
        }
        say("mood", value(c, "select ?::mood", "busy"));
        try (PreparedStatement s = c.prepareStatement("select ?::bytea")) {
            byte[] block = new byte[2 << 20];
            Arrays.fill(block, (byte) 7);
            for (int turn = 0; turn < 6; turn++) {
                s.setBytes(1, block);
                try (ResultSet rows = s.executeQuery()) {
                    rows.next();
                    say("bytes", Arrays.equals(block, rows.getBytes(1)));
                }
            }
        }
        c.setAutoCommit(false);
        LargeObjectManager large = c.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = large.createLO(LargeObjectManager.READWRITE);
        try (LargeObject object = large.open(oid, LargeObjectManager.READWRITE)) {
            object.write("large object".getBytes(StandardCharsets.UTF_8));
            object.seek(6);
            say("large object", new String(object.read(6), StandardCharsets.UTF_8));
        }
        large.unlink(oid);
        c.commit();
    }

    void copies(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("create table bulk(n int, words text)");
        }
        var copy = c.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int n = 0; n < 3000; n++) rows.append(n).append("\trow ").append(n).append('\n');
        say("in", copy.copyIn("copy bulk from stdin", new StringReader(rows.toString())));
        StringWriter out = new StringWriter();
        say(
            "out",
            copy.copyOut("copy (select * from bulk order by n) to stdout with csv", out),
            out.toString().length()
        );
        ByteArrayOutputStream binary = new ByteArrayOutputStream();
        say("binary", copy.copyOut("copy bulk to stdout (format binary)", binary), binary.size());
        say(
            "back",
            copy.copyIn(
                "copy bulk from stdin (format binary)",
                new ByteArrayInputStream(binary.toByteArray())
            )
        );
        fails("broken", () ->
            copy.copyIn("copy bulk from stdin", new StringReader("x\ty\n".repeat(5000)))
        );
        say("count", value(c, "select count(*) from bulk"));
    }

    void cancels(Connection c) throws Exception {
        for (int turn = 0; turn < 2; turn++) {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                fails("query timeout", () -> s.execute("select pg_sleep(20)"));
            }
            say("well", value(c, "select ?::int", turn));
        }
        try (Statement s = c.createStatement()) {
            ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
            timer.schedule(
                () -> {
                    s.cancel();
                    return null;
                },
                200,
                TimeUnit.MILLISECONDS
            );
            fails("cancelled", () -> s.execute("select pg_sleep(20)"));
            timer.shutdown();
            s.cancel();
        }
        say("usable", value(c, "select 1"));
    }

    void catalog(Connection c) throws Exception {
        DatabaseMetaData about = c.getMetaData();
        try (ResultSet rows = about.getTables(null, schema, "%", new String[] { "TABLE" })) {
            while (rows.next()) say("table", rows.getString("TABLE_NAME"));
        }
        try (ResultSet rows = about.getColumns(null, schema, "item", "%")) {
            while (rows.next())
                say(
                    "column",
                    rows.getString("COLUMN_NAME"),
                    rows.getString("TYPE_NAME"),
                    rows.getString("COLUMN_DEF")
                );
        }
        try (ResultSet rows = about.getPrimaryKeys(null, schema, "item")) {
            while (rows.next()) say("key", rows.getString("COLUMN_NAME"));
        }
        try (PreparedStatement s = c.prepareStatement("select n, words from item where n = ?")) {
            say(
                "described",
                s.getMetaData().getColumnTypeName(1),
                s.getParameterMetaData().getParameterTypeName(1)
            );
        }
    }

    void twoPhases() throws Exception {
        PGXADataSource source = new PGXADataSource();
        source.setUrl(url());
        source.setUser(ENV.get("PGUSER"));
        source.setPassword(ENV.get("PGPASSWORD"));
        source.setCurrentSchema(schema);
        XAConnection xa = source.getXAConnection();
        for (boolean commits : new boolean[] { true, false }) {
            Xid xid = new Xid() {
                public int getFormatId() {
                    return 7;
                }

                public byte[] getGlobalTransactionId() {
                    return (schema + commits).getBytes();
                }

                public byte[] getBranchQualifier() {
                    return new byte[] { 1 };
                }
            };
            XAResource resource = xa.getXAResource();
            resource.start(xid, XAResource.TMNOFLAGS);
            value(
                xa.getConnection(),
                "insert into item(n) values (?) returning n",
                commits ? 4000 : 4001
            );
            resource.end(xid, XAResource.TMSUCCESS);
            say("prepared", resource.prepare(xid));
            if (commits) resource.commit(xid, false);
            else resource.rollback(xid);
        }
        say("two phases", value(xa.getConnection(), "select count(*) from item where n >= 4000"));
        xa.close();
    }

    void pool() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url());
        config.setDataSourceProperties(properties());
        config.setUsername(ENV.get("PGUSER"));
        config.setPassword(ENV.get("PGPASSWORD"));
        config.setMaximumPoolSize(3);
        config.setConnectionInitSql("set application_name = 'of a pool'");
        config.setTransactionIsolation("TRANSACTION_REPEATABLE_READ");
        try (HikariDataSource pool = new HikariDataSource(config)) {
            ExecutorService threads = Executors.newFixedThreadPool(5);
            List<Future<Object>> all = new ArrayList<>();
            for (int n = 0; n < 40; n++) {
                int number = n;
                all.add(
                    threads.submit(() -> {
                        try (Connection c = pool.getConnection()) {
                            if (number % 3 == 0) c.setReadOnly(true);
                            return (
                                value(c, "select ?::int", number) +
                                (String) value(c, "show transaction_isolation")
                            );
                        }
                    })
                );
            }
            for (Future<Object> one : all) say("pool", one.get());
            threads.shutdown();
            try (Connection c = pool.getConnection()) {
                c.setAutoCommit(false);
                value(c, "insert into item(n) values (?) returning n", 5000);
            }
            try (Connection c = pool.getConnection()) {
                say(
                    "rolled back",
                    value(c, "select count(*) from item where n = 5000"),
                    value(c, "show application_name")
                );
            }
        }
    }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char one : text.toCharArray()) {
            if (one == '"' || one == '\\') out.append('\\').append(one);
            else if (one < ' ') out.append(String.format("\\u%04x", (int) one));
            else out.append(one);
        }
        return out.append('"').toString();
    }

    public static void main(String[] arguments) throws Exception {
        int clients = Integer.parseInt(ENV.get("TOUR_CLIENTS"));
        ExecutorService threads = Executors.newFixedThreadPool(clients);
        List<Tour> tours = new ArrayList<>();
        List<Future<?>> ends = new ArrayList<>();
        for (int n = 0; n < clients; n++) {
            Tour tour = new Tour(n);
            tours.add(tour);
            ends.add(
                threads.submit(() -> {
                    try {
                        tour.take();
                    } catch (Exception error) {
                        error.printStackTrace();
                        tour.say("ended by", error);
                    }
                })
            );
        }
        for (Future<?> end : ends) end.get();
        threads.shutdown();
        StringJoiner all = new StringJoiner(",", "[", "]");
        for (Tour tour : tours) {
            StringJoiner one = new StringJoiner(",", "[", "]");
            for (String step : tour.steps) one.add(quoted(step));
            all.add(one.toString());
        }
        System.out.write(all.toString().getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }
}
