"""Real drivers take their tour through transaction pooling with default settings: they must not
notice that they share a few connections (docs/drivers.md)."""

import os
import pathlib
import shutil
import sys

import pytest

from tour import Tour, assert_unnoticed

NODE = pathlib.Path(os.environ.get("FOREBAY_TEST_NODE", "target/node")).resolve()
TOURS = pathlib.Path(__file__).parent / "tours"

# Two programs with several clients each: a busy machine needs its time.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def scripts(folder):
    """The tours in JavaScript, beside the packages they import."""
    target = folder / "node"
    shutil.copytree(TOURS / "node", target)
    (target / "node_modules").symlink_to(NODE / "node_modules")
    return target


def python(name, **more):
    return pytest.param(Tour([sys.executable, TOURS / f"tour_{name}.py"], **more), id=name)


@pytest.mark.parametrize(
    "tour",
    [
        python("psycopg", pins=["hold_cursor"]),
        python("psycopg_async"),
        python("psycopg2", pins=["hold_cursor"]),
        python("asyncpg"),
        python("sqlalchemy"),
        python("sqlalchemy_async"),
        python("django", pins=["hold_cursor"], clients=4),
    ],
)
def test_a_driver_for_python_does_not_notice_forebay(tour, narrow, postgres):
    assert_unnoticed(tour, narrow, postgres)


@pytest.mark.parametrize("name", ["node_postgres", "postgres_js"])
def test_a_driver_for_node_does_not_notice_forebay(name, scripts, narrow, postgres):
    tour = Tour([NODE / "bin" / "node", "--no-deprecation", scripts / f"{name}.mjs"])
    assert_unnoticed(tour, narrow, postgres)
