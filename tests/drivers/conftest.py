"""What the tests share: one private PostgreSQL, and Forebay in front of it."""

import pathlib
import shutil
import tempfile

import pytest
import trustme

import tour
from gateway import BUDGET, Forebay
from llm_standin import KEY, Standin
from private_postgres import PrivatePostgres
from processes import free_port


class Authority:
    """Signs the certificates of a run. Nobody else trusts it."""

    def __init__(self):
        self.ca = trustme.CA()

    def write(self, path):
        self.ca.cert_pem.write_to_path(str(path))

    def issue_cert(self, *names):
        return Certificate(self.ca.issue_cert(*names))


class Certificate:
    def __init__(self, leaf):
        self.leaf = leaf

    def configure_files(self, cert, key):
        cert.write_bytes(b"".join(blob.bytes() for blob in self.leaf.cert_chain_pems))
        key.write_bytes(self.leaf.private_key_pem.bytes())
        key.chmod(0o600)


@pytest.fixture(scope="session")
def folder():
    """A temporary folder that other users may pass through."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="forebay-drivers-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def postgres(folder, authority):
    server = PrivatePostgres(folder / "postgres", authority)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_forebay(folder, authority, postgres):
    """TLS on both legs, three default classes on a budget of ten."""
    gateway = Forebay(
        folder / "forebay", address=f"localhost:{postgres.port}", authority=authority
    )
    try:
        yield gateway.start()
    finally:
        assert gateway.stop() == 0, gateway.log()


@pytest.fixture(scope="session")
def narrow(folder, postgres):
    """Default settings on three server connections: the drivers take their tours here."""
    with postgres.connect(dbname="postgres") as admin:
        admin.autocommit = True
        admin.execute(f"create database {tour.DATABASE} owner app")
    forebay = Forebay(folder / "tours", address=f"localhost:{postgres.port}", budget=tour.BUDGET)
    try:
        yield forebay.start()
    finally:
        assert forebay.stop() == 0, forebay.log()


@pytest.fixture(scope="session")
def llm(folder, authority):
    cert, key = folder / "llm.crt", folder / "llm.key"
    authority.issue_cert("localhost").configure_files(cert, key)
    standin = Standin(cert, key)
    yield standin
    standin.stop()


@pytest.fixture(scope="session")
def egress(folder, authority, postgres, llm):
    """Both gateways: PostgreSQL, and the stand-in for an LLM's API behind TLS."""
    authority.write(folder / "llm-ca.pem")
    gateway = Forebay(
        folder / "egress",
        address=f"localhost:{postgres.port}",
        destinations=f"""
[http.destinations.llm]
url = "https://localhost:{llm.port}"
ca_file = "{folder}/llm-ca.pem"
budget = 8
auth = {{ type = "bearer", secret = "{KEY}" }}

[http.destinations.claude]
url = "https://localhost:{llm.port}"
ca_file = "{folder}/llm-ca.pem"
auth = {{ type = "header", name = "x-api-key", secret = "{KEY}" }}

# Who finds its connection taken is told so almost at once.
[http.destinations.one]
url = "https://localhost:{llm.port}"
ca_file = "{folder}/llm-ca.pem"
budget = 1
checkout_timeout = "50ms"
auth = {{ type = "bearer", secret = "{KEY}" }}

[http.destinations.gone]
url = "https://localhost:{free_port()}"
ca_file = "{folder}/llm-ca.pem"

# Its certificate is signed by nobody whom this destination trusts.
[http.destinations.stranger]
url = "https://localhost:{llm.port}"
""",
    )
    try:
        yield gateway.start(ready=False)
    finally:
        assert gateway.stop() == 0, gateway.log()


@pytest.fixture
def forebay(shared_forebay, postgres):
    """The shared gateway; after each test it has all its connections back and is alive."""
    yield shared_forebay
    assert shared_forebay.process.poll() is None, shared_forebay.log()[-4000:]
    assert postgres.server_connections() <= BUDGET


@pytest.fixture
def own_forebay(folder, authority, postgres, request):
    """Makes gateways with a configuration of the test's own."""
    made = []

    def make(address=None, ready=True, **settings):
        gateway = Forebay(
            folder / f"{request.node.name[:60].replace('/', '-')}-{len(made)}",
            address=address or f"localhost:{postgres.port}",
            **settings,
        )
        made.append(gateway)
        return gateway.start(ready=ready)

    yield make
    for gateway in made:
        gateway.stop()
