"""The verdict claims no more than the comparisons allow."""

import math
from typing import Any

import pandas as pd
import pytest

from analysis.verdicts import Verdict, number, p_value, verdict

BETTER = {"mean": 0.061, "low": 0.035, "high": 0.087, "p_holm": 0.0004}
UNCLEAR = {"mean": 0.01, "low": -0.01, "high": 0.03, "p_holm": 0.3}
WORSE = {"mean": -0.02, "low": -0.03, "high": -0.01, "p_holm": 0.01}
PLAIN, MASKED, RANDOM, WRONG = "plain", "masked-lm", "random-teacher", "wrong-domain"


def judged(found: dict[str, dict[str, float]], **columns: Any) -> Verdict:
    rows = [
        {
            "method": "mlkd",
            "against": name,
            "role": "baseline" if name in (PLAIN, MASKED) else "control",
            "measure": "auroc",
            "direction": "maximise",
            "split": "test",
            "pairs": 8,
            "interval": "OR",
            **bounds,
            **columns,
        }
        for name, bounds in found.items()
    ]
    return verdict(pd.DataFrame(rows), {"mlkd": "tiny-en-med"})


def test_knowledge_moved_where_all_controls_and_baselines_are_beaten() -> None:
    less = BETTER | {"mean": 0.04, "low": 0.01, "high": 0.07, "p_holm": 0.012}
    found = judged({PLAIN: BETTER, MASKED: less, RANDOM: BETTER, WRONG: less})
    assert found.claim
    assert found.sentence == (
        "Domain knowledge moved: tiny-en-med beats every control (smallest difference: "
        "wrong-domain +.040 [.010, .070], p = .012) and the baselines (plain +.061, "
        "masked-lm +.040)."
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({PLAIN: BETTER, RANDOM: UNCLEAR}, "but is not better than random-teacher +.010 [-.010"),
        ({PLAIN: BETTER, RANDOM: BETTER, WRONG: UNCLEAR}, "distilling as such, not the domain"),
        ({PLAIN: BETTER, RANDOM: WORSE}, "but is worse than random-teacher -.020"),
        ({PLAIN: UNCLEAR, RANDOM: BETTER}, "beats every control, but is not better than plain"),
        ({PLAIN: BETTER, MASKED: UNCLEAR, RANDOM: BETTER}, "is not better than masked-lm"),
        (
            {PLAIN: WORSE, RANDOM: UNCLEAR},
            "is worse than plain -.020 [-.030, -.010], p = .01, and ",
        ),
        ({PLAIN: BETTER}, "without a control no gain can be credited"),
        ({RANDOM: BETTER}, "was not compared with a baseline"),
        ({PLAIN: BETTER, RANDOM: BETTER | {"pairs": 2}}, "random-teacher share 2 seeds"),
        ({PLAIN: BETTER, RANDOM: BETTER | {"p_holm": math.nan}}, "not better than random-teacher"),
    ],
)
def test_there_is_no_claim_otherwise_and_it_says_why(
    found: dict[str, dict[str, float]], says: str
) -> None:
    claim, sentence = judged(found)
    assert not claim
    assert sentence.startswith("No claim: ")
    assert says in sentence


def test_less_is_better_where_a_measure_is_minimised() -> None:
    assert judged({PLAIN: WORSE, RANDOM: WORSE}, direction="minimise").claim
    assert not judged({PLAIN: BETTER, RANDOM: BETTER}, direction="minimise").claim


def test_nothing_is_claimed_of_validation() -> None:
    claim, sentence = judged({PLAIN: BETTER, RANDOM: BETTER}, split="validation")
    assert not claim
    assert "before the test split is read" in sentence


def test_intervals_over_seeds_alone_are_named() -> None:
    assert "over seeds alone" in judged({PLAIN: BETTER, RANDOM: BETTER}, interval="t").sentence


def test_numbers_are_short() -> None:
    assert [number(-0.0512, True), number(0.9996), number(12.5, True)] == [
        "-.051",
        "1.000",
        "+12.500",
    ]
    assert [p_value(0.00005), p_value(0.0312), p_value(1.0)] == ["p < .0001", "p = .031", "p = 1"]
