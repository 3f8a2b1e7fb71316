"""Every fault of the table ends in the ledger and the tables of an undisturbed run, and repeats what it may and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.survival.faults import table
from tests.survival.play import Undisturbed, play, run_undisturbed
from tests.survival.scene import cluster_of

FAULTS = table()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    with cluster_of() as cluster:
        yield run_undisturbed(tmp_path_factory.mktemp("undisturbed"), cluster)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_end_is_that_of_an_undisturbed_run(name, undisturbed, tmp_path):
    fault = FAULTS[name]
    ending = play(fault, tmp_path, undisturbed)
    assert ending.equal
    assert (ending.repeated, ending.missing) == (fault.repeated, ())
    assert fault.retries is None or ending.retries == fault.retries
