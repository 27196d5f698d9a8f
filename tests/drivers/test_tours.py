"""Real drivers take their tour through transaction pooling with default settings: they must not
notice that they share a few connections (docs/drivers.md)."""

import pathlib
import sys

import pytest

from gateway import Forebay
from tour import BUDGET, Tour, assert_unnoticed

TOURS = pathlib.Path(__file__).parent / "tours"


@pytest.fixture(scope="module")
def narrow(folder, postgres):
    """Default settings on three server connections."""
    forebay = Forebay(folder / "tours", address=f"localhost:{postgres.port}", budget=BUDGET)
    try:
        yield forebay.start()
    finally:
        assert forebay.stop() == 0, forebay.log()


def python(name, **more):
    return pytest.param(Tour([sys.executable, TOURS / f"tour_{name}.py"], **more), id=name)


@pytest.mark.parametrize(
    "tour",
    [
        python("psycopg", pins=["hold_cursor"]),
    ],
)
def test_a_driver_does_not_notice_forebay(tour, narrow, postgres):
    assert_unnoticed(tour, narrow, postgres)
