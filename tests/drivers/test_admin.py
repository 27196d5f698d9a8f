"""What an operator asks of the running program."""

import os
import subprocess
import threading

import psycopg

from gateway import BINARY
from private_postgres import PASSWORD
from processes import end, eventually


def test_metrics_are_what_prometheus_reads(forebay):
    status, text = forebay.admin("/metrics")
    assert status == 200 and "forebay_" in text
    checked = subprocess.run(
        [os.environ["FOREBAY_TEST_PROMTOOL"], "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
    )
    # OpenTelemetry gives a gauge a name that promtool would keep for histograms.
    said = (checked.stdout + checked.stderr).splitlines()
    assert [line for line in said if not line.startswith("db_client_connection_count ")] == []
    assert PASSWORD not in text


def test_health_readiness_and_snapshot(forebay):
    assert forebay.admin("/healthz")[0] == 200
    assert forebay.admin("/readyz")[0] == 200
    assert forebay.admin("/no/such/page")[0] == 404
    pool = forebay.snapshot()["postgres"]["pools"][0]
    assert {c["class"] for c in pool["classes"]} == {"core", "ai-read", "ai-write"}


def test_secrets_never_reach_the_log(forebay):
    with psycopg.connect(**forebay.dsn()) as connection:
        connection.execute("select 1")
    assert PASSWORD not in forebay.log()


def test_sigterm_lets_running_work_finish(own_forebay):
    forebay = own_forebay()
    idle = psycopg.connect(**forebay.dsn(), autocommit=True)
    idle.execute("select 1")
    outcome = []

    def work():
        with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
            outcome.append(connection.execute("select 'done' from pg_sleep(2)").fetchone())

    def leased():
        return sum(p["leased"] for p in forebay.snapshot()["postgres"]["pools"])

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: leased() == 1, what="the query runs")
    assert end(forebay.process) == 0
    thread.join()
    assert outcome == [("done",)]
    try:
        idle.execute("select 1")
        raise AssertionError("the gateway is gone, and still it answered")
    except psycopg.OperationalError as error:
        assert error.sqlstate in ("57P01", None)


def test_a_second_sigterm_ends_at_once(own_forebay):
    forebay = own_forebay()
    connection = psycopg.connect(**forebay.dsn())
    connection.execute("select 1")
    forebay.process.terminate()
    eventually(lambda: forebay.admin("/readyz")[0] == 503, what="it drains")
    end(forebay.process, within=10)
    connection.close()


def test_check_names_file_line_and_key(tmp_path):
    config = tmp_path / "wrong.toml"
    config.write_text('[postgres.servers.main]\naddress = "localhost"\nbudgett = 5\n')
    run = subprocess.run([BINARY, "check", str(config)], capture_output=True, text=True)
    said = run.stdout + run.stderr
    assert run.returncode == 2
    assert "wrong.toml" in said and "3" in said and "budgett" in said and "budget" in said
