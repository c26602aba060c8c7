"""The headroom in a study: said first, kept in the ledger, measured once."""

from dataclasses import replace

import pytest

from dsgkd.ledger import Ledger
from dsgkd.study.config import ConfirmationConfig
from dsgkd.study.console import Console
from dsgkd.study.search.config import SearchConfig
from dsgkd.study.study import Study

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_study_measures_its_headroom_once_and_keeps_it(local_ray, make_study):
    lines: list[str] = []
    config = make_study(
        headroom=True,
        search=SearchConfig(trials=2),
        confirmation=ConfirmationConfig(seeds=1, controls=()),
    )
    Study(config, Console(lines.append)).run()
    (said,) = (at for at, line in enumerate(lines) if "eadroom" in line and "teacher" in line)
    assert not any("trial" in line and "finished" in line for line in lines[:said])
    ledger = Ledger(config.location.child("ledger"))
    (verdict,) = (row for row in ledger.rows("headroom") if row["verdict"])
    assert verdict["verdict"] == lines[said]
    assert verdict["study_id"] == ledger.rows("studies")[0]["study_id"]

    lines.clear()
    Study(replace(config, resume=True, headroom=False), Console(lines.append)).run()
    Study(replace(config, resume=True), Console(lines.append)).run()
    assert not any("eadroom" in line for line in lines)
