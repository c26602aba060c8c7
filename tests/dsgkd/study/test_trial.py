"""A trial writes down what its model predicts, with the categories of each note."""

from dataclasses import replace

from dsgkd.ledger import Ledger
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.messages import TrialFinished
from dsgkd.study.spec import PlannedTrial
from dsgkd.study.stages import spec_of
from dsgkd.study.trial import trial_steps


def test_predictions_say_how_often_training_saw_the_rarest_word(make_study, make_config):
    config = make_study("one")
    planned = PlannedTrial("confirm", "plain", "confirm-plain-000-000", make_config(), "search")
    spec = replace(spec_of(config, StudyManifest(config), planned), study_id="one")
    *_, last = trial_steps(spec)
    assert isinstance(last, TrialFinished)
    rows = Ledger(spec.ledger).rows("predictions")
    found = {row["subgroups"]["rarest_word"] for row in rows}
    assert found <= {"never", "1-2", "3+", "none"}
    assert found - {"none"}
