import math

import numpy as np

from dsgkd.study.trial import packed, unpacked


def test_a_report_comes_out_of_its_piece_as_it_went_in():
    report = {
        "epoch": 2,
        "score": 0.1 + 0.2,
        "best_score": np.float32(0.5),
        "result": {"validation": {"auroc": math.nan, "brier": None}, "finished": True},
        "unwritable": ("a place", "is full", "free some"),
    }
    got = unpacked(packed(report))
    assert math.isnan(got["result"]["validation"].pop("auroc"))
    del report["result"]["validation"]["auroc"]
    assert got == report | {"unwritable": ["a place", "is full", "free some"]}


def test_tune_sees_no_number_but_the_score():
    seen = packed({"epoch": 1, "score": 0.5, "result": {"train": {"loss": 1.0}}})
    assert {name for name, value in seen.items() if not isinstance(value, str)} == {"score"}
