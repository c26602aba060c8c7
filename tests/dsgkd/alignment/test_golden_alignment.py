"""Does the `paper` rule reproduce the paper's spans, case by case?"""

import json
from pathlib import Path

import pytest
from distilling import batches_of
from torch.nn.functional import pad
from transformers import AutoTokenizer

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [
    pytest.param(entry["text"], case, id=f"text {number}, M {case['max_length']}")
    for number, entry in enumerate(json.loads((GOLDEN / "alignment.json").read_text("utf-8")))
    for case in entry["cases"]
]


@pytest.mark.parametrize(("text", "case"), CASES)
def test_the_paper_rule_gives_the_golden_spans_ids_masks_and_word_counts(
    text, case, make_notes, tmp_path
):
    student, teacher = (
        AutoTokenizer.from_pretrained(GOLDEN / "tokenizers" / name)
        for name in ("student", "teacher")
    )
    length, most = case["max_length"], case["cs_max_len"]
    texts = EncodedTexts.of(
        make_notes([text]), student, [teacher], length, WordRule("paper"), tmp_path
    )
    (batch,) = batches_of(texts, most=most, pad_to=length)
    (pair,) = batch.pairs

    for side, words, name in (
        (batch.student, pair.student, "student"),
        (pair.teacher, pair.teacher.words, "teacher"),
    ):
        spans = pad(words.spans, (0, 0, 0, most - words.spans.shape[1]))
        assert spans[0].tolist() == case[f"{name}_span"]
        assert side.input_ids[0].tolist() == case[f"{name}_input_ids"]
        assert side.attention_mask[0].tolist() == case[f"{name}_mask"]
    assert min(int(texts.alignments[0].words.lengths[0]), most + 1) == case["cs_len"]
    assert pair.mask.sum() == min(case["cs_len"], most)


def test_the_golden_file_holds_cases_that_cut_and_that_do_not():
    lengths = {case.values[1]["cs_len"] for case in CASES}
    assert {0, 2, 4, 5, 7} <= lengths
