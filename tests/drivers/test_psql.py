"""psql as a person uses it: at a terminal."""

import re
import subprocess

import pexpect
import pytest

PROMPT = r"app[=*!]>\s?"


@pytest.fixture
def terminal(forebay):
    """psql at a prompt of a terminal."""
    child = pexpect.spawn(
        "psql",
        ["-X", "-v", "PROMPT1=%/%x> ", "-v", "PROMPT2=more> ", "--pset", "pager=off"],
        env=forebay.env(TERM="dumb", PSQL_HISTORY="/dev/null"),
        encoding="utf-8",
        timeout=15,
        dimensions=(50, 200),
    )
    child.expect(r"app> ")
    yield child
    child.sendline(r"\q")
    child.expect(pexpect.EOF)


def say(terminal, line, prompt=r"\n[^\n]*app[*!]?> $"):
    """Types `line` and returns what is printed until the next prompt."""
    terminal.sendline(line)
    terminal.expect(prompt)
    return terminal.before


def test_describe_lists_tables_and_columns(terminal):
    say(terminal, "drop table if exists described; create table described(id int primary key);")
    assert "described" in say(terminal, r"\d")
    described = say(terminal, r"\d described")
    assert re.search(r"id\s+\|\s+integer", described) and "described_pkey" in described
    assert "app" in say(terminal, r"\l")
    assert "app" in say(terminal, r"\du")


def test_copy_goes_both_ways(terminal, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("".join(f"{n},row number {n}\n" for n in range(20_000)))
    say(terminal, "drop table if exists copied; create table copied(n int, words text);")
    assert "COPY 20000" in say(terminal, rf"\copy copied from '{source}' csv")
    assert "COPY 20000" in say(
        terminal, rf"\copy (select * from copied order by n) to '{target}' csv"
    )
    assert target.read_text() == source.read_text()


def test_a_copy_that_fails_leaves_the_session_usable(terminal, tmp_path):
    broken = tmp_path / "broken.csv"
    broken.write_text("1,fine\nnot a number,broken\n" + "2,more\n" * 1000)
    say(terminal, "drop table if exists strict; create table strict(n int, words text);")
    assert "invalid input syntax" in say(terminal, rf"\copy strict from '{broken}' csv")
    assert re.search(r"\b0\b", say(terminal, "select count(*) from strict;"))


def test_control_c_cancels_the_running_query_and_the_session_serves_on(terminal, postgres):
    terminal.sendline("select pg_sleep(60);")
    terminal.expect(r"pg_sleep\(60\);")
    _wait_for_sleep(postgres, 1)
    terminal.sendintr()
    terminal.expect("canceling statement due to user request")
    terminal.expect(r"app[*!]?> ")
    assert "57014" in say(terminal, r"\echo :LAST_ERROR_SQLSTATE")
    assert "still here" in say(terminal, "select 'still' || ' here';")
    _wait_for_sleep(postgres, 0)


def test_control_c_in_a_transaction_leaves_a_failed_transaction(terminal, postgres):
    say(terminal, "begin;")
    terminal.sendline("select pg_sleep(60);")
    terminal.expect(r"pg_sleep\(60\);")
    _wait_for_sleep(postgres, 1)
    terminal.sendintr()
    terminal.expect("canceling statement due to user request")
    terminal.expect(r"app!> ")
    assert "current transaction is aborted" in say(terminal, "select 1;")
    assert "ROLLBACK" in say(terminal, "rollback;")


def _wait_for_sleep(postgres, count):
    from processes import eventually

    running = "state = 'active' and query like '%pg_sleep(60)%'"
    eventually(lambda: postgres.server_connections(where=running) == count, what="pg_sleep")


def test_a_script_stops_at_its_first_error_with_psqls_status(forebay):
    script = "select 1; select 1/0; select 2;"
    run = subprocess.run(
        ["psql", "-X", "-At", "-v", "ON_ERROR_STOP=1"],
        input=script,
        env=forebay.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 3 and run.stdout == "1\n" and "division by zero" in run.stderr


def test_several_statements_in_one_message(forebay):
    run = subprocess.run(
        ["psql", "-X", "-At", "-c", "begin; select 1; select 2; commit; select 3"],
        env=forebay.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["BEGIN", "1", "2", "COMMIT", "3"]
