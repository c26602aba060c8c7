"""Runs that never left the chance level are named."""

from dsgkd.study.history import TrialHistory
from dsgkd.study.lines import stuck_lines


def run(method, number, stuck, stage="confirm", state="complete"):
    name = f"{stage}-{method}-000-{number:03d}"
    figures = (1, {}, 1, {}, 0.0, {}, {}, 0.0)
    return TrialHistory(name, method, stage, state, "", *figures, row={"stuck": stuck})


def test_stuck_runs_are_counted_among_the_confirmed_ones_of_their_method():
    past = [
        *(run("plain", number, number in (1, 3)) for number in range(4)),
        run("plain", 9, True, "search"),
        run("mlkd", 0, None),  # written before there was the column
        run("random-teacher", 0, True, "control"),
        run("mlkd", 1, True, state="failed"),
    ]
    assert stuck_lines(past) == [
        "2 of 4 runs of plain never left the chance level: confirm-plain-000-001, "
        "confirm-plain-000-003",
        "1 of 1 run of random-teacher never left the chance level: control-random-teacher-000-000",
    ]
