"""The tours of drivers that take minutes to install; run by `tests/drivers/all`."""

import os
import pathlib

import pytest

from tour import Tour, assert_unnoticed

TOURS = pathlib.Path(__file__).parent / "tours"
BUILT = pathlib.Path(os.environ["FOREBAY_TEST_TOURS"])
JARS = os.environ["FOREBAY_TEST_JARS"]

# Two programs with several clients each: a busy machine needs its time.
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    "tour",
    [
        pytest.param(Tour(["java", "-cp", f"{JARS}:{BUILT}", "Tour"]), id="pgjdbc"),
        pytest.param(Tour([BUILT / "go", "pgx"]), id="pgx"),
        pytest.param(Tour([BUILT / "go", "pq"]), id="lib/pq"),
        # Migrations hold an advisory lock of the session.
        pytest.param(
            Tour(["ruby", TOURS / "tour.rb"], pins=["advisory_lock"], clients=4),
            id="ActiveRecord",
        ),
        pytest.param(Tour(["perl", TOURS / "tour.pl"]), id="DBD::Pg"),
    ],
)
def test_a_driver_does_not_notice_forebay(tour, narrow, postgres):
    assert_unnoticed(tour, narrow, postgres)
