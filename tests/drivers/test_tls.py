"""TLS on both legs, with libpq's names, and who is believed."""

import psycopg
import pytest

from processes import eventually


@pytest.fixture
def ca(folder, authority):
    path = folder / "ca.pem"
    authority.write(path)
    return path


def answers(forebay, **more):
    with psycopg.connect(**forebay.dsn(**more)) as connection:
        return connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_a_client_chooses_by_sslmode(forebay, ca, sslmode):
    with psycopg.connect(**forebay.dsn(sslmode=sslmode, sslrootcert=str(ca))) as connection:
        assert connection.pgconn.ssl_in_use == (sslmode != "disable")
        assert connection.execute("select 1").fetchone() == (1,)


def test_plaintext_can_be_refused(own_forebay, authority, folder):
    cert, key = folder / "required.crt", folder / "required.key"
    authority.issue_cert("localhost").configure_files(cert, key)
    forebay = own_forebay(
        postgres=f'tls = {{ cert = "{cert}", key = "{key}", required = true }}',
        server='sslmode = "require"',
    )
    with pytest.raises(psycopg.OperationalError) as refused:
        answers(forebay, sslmode="disable")
    assert "FATAL" in str(refused.value)
    assert answers(forebay, sslmode="require")


def uses_tls(postgres):
    return postgres.server_connections(
        where="(select ssl from pg_stat_ssl s where s.pid = pg_stat_activity.pid)"
        " and application_name = 'leg'"
    )


@pytest.mark.parametrize(
    ("sslmode", "encrypted"),
    [("disable", 0), ("allow", 0), ("prefer", 1), ("require", 1), ("verify-ca", 1)],
)
def test_the_leg_to_the_server_follows_sslmode(own_forebay, postgres, ca, sslmode, encrypted):
    server = f'sslmode = "{sslmode}"\n'
    if sslmode == "verify-ca":
        server += f'sslrootcert = "{ca}"\n'
    # The certificate is not made out for this address, which only verify-full would mind.
    forebay = own_forebay(address=f"127.0.0.2:{postgres.port}", server=server)
    with psycopg.connect(**forebay.dsn(application_name="leg")) as connection:
        connection.execute("select 1")
        assert uses_tls(postgres) == encrypted


def test_a_server_with_anothers_certificate_is_not_believed(own_forebay, postgres, ca):
    forebay = own_forebay(
        address=f"127.0.0.2:{postgres.port}",
        server=f'sslmode = "verify-full"\nsslrootcert = "{ca}"',
        ready=False,
    )
    with pytest.raises(psycopg.OperationalError):
        answers(forebay)
    eventually(lambda: "certificate" in forebay.log().lower(), what="the reason in the log")


def test_a_server_signed_by_a_stranger_is_not_believed(own_forebay, folder):
    import trustme

    stranger = folder / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    forebay = own_forebay(
        server=f'sslmode = "verify-ca"\nsslrootcert = "{stranger}"', ready=False
    )
    with pytest.raises(psycopg.OperationalError):
        answers(forebay)


def test_a_stored_verifier_is_as_good_as_the_password(own_forebay, postgres):
    with postgres.connect(dbname="postgres") as admin:
        verifier = admin.execute(
            "select rolpassword from pg_authid where rolname = 'app'"
        ).fetchone()[0]
    assert verifier.startswith("SCRAM-SHA-256$")
    forebay = own_forebay(user=f'password = "{verifier}"\nserver_password = "env:APP_PASSWORD"')
    assert answers(forebay)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**forebay.dsn(), "password": "wrong"})


def test_a_user_may_be_another_one_at_the_server(own_forebay):
    forebay = own_forebay(
        postgres='users.alias = { password = "for the alias", server_user = "app", '
        'server_password = "env:APP_PASSWORD" }'
    )
    with psycopg.connect(
        **{**forebay.dsn(user="alias"), "password": "for the alias"}
    ) as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)
