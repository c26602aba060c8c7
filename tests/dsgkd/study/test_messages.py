import math

import numpy as np
import pytest

from dsgkd.study.messages import (
    EpochFinished,
    StorageFailed,
    TrialFailed,
    TrialFinished,
    pack,
    unpack,
)


@pytest.mark.parametrize(
    "report",
    [
        EpochFinished(
            epoch=2,
            score=0.1 + 0.2,
            validation={"auroc": 0.3, "brier": 0.1},
            best_epoch=1,
            best_objective=0.4,
            raw={"ce": 1.5},
            share={"ce": 1.0},
            stuck=False,
        ),
        TrialFinished(measured={"test": {"auroc": 0.5}}, peak_rss_mb=3.0),
        TrialFailed(reason="no data"),
        StorageFailed("a place", "is full", "free some"),
    ],
)
def test_a_report_comes_out_of_its_piece_as_it_went_in(report):
    assert unpack(pack(report)) == report


def test_numbers_of_numpy_and_those_that_are_none_come_through():
    validation = {"auroc": math.nan, "brier": np.float32(0.5)}
    sent = EpochFinished(
        epoch=1, score=math.nan, validation=validation, best_epoch=1, best_objective=math.nan
    )
    got = unpack(pack(sent))
    assert math.isnan(got.validation["auroc"])
    assert got.validation["brier"] == 0.5


def test_tune_sees_no_number_but_the_score():
    seen = pack(EpochFinished(epoch=1, score=0.5, validation={}, best_epoch=1, best_objective=0.5))
    assert {name for name, value in seen.items() if not isinstance(value, str)} == {"score"}
