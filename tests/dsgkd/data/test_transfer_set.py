"""Which texts each step reads: as many of every source as the weights say, and reproducibly."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from dsgkd.data.ragged import Ragged
from dsgkd.data.transfer_set import (
    Feedback,
    FixedMix,
    TransferConfig,
    new_sampler,
    parse_mix,
    term_weights,
)
from dsgkd.errors import InputError

NAMES = ("labelled", "unlabelled", "glossary")
COUNTS = (61, 150, 20)
SOURCES = np.repeat(np.arange(3), COUNTS)
LENGTHS = np.random.default_rng(0).integers(3, 60, len(SOURCES))


def zipfian_words() -> Ragged:
    """Up to four of fifty words in each text, the rarest fifty times rarer than the first."""
    random = np.random.default_rng(5)
    shares = 1 / np.arange(1, 51)
    counts = random.integers(0, 5, len(SOURCES))
    counts[-COUNTS[2] :] = 1
    return Ragged.of_lengths(
        random.choice(50, counts.sum(), p=shares / shares.sum()) * 10**12, counts
    )


class Shifting(FixedMix):
    """A dynamic mix: a quarter more of the unlabelled texts after every evaluation."""

    def update(self, feedback: Feedback) -> None:
        self.weights["unlabelled"] *= 1.25


def sampler(size=8, seed=1, kind="fixed", **weights):
    mix = ",".join(f"{name}={weight}" for name, weight in weights.items())
    config = TransferConfig(("u",), None, "g", mix, kind)
    return new_sampler(config, LENGTHS, SOURCES, NAMES, size, seed, zipfian_words)


def alone(lengths, size, seed) -> FixedMix:
    """A mix of one source."""
    return FixedMix(lengths, np.zeros(len(lengths), int), ("labelled",), {}, size, seed)


def one_pass(mix, first=0) -> list[list[int]]:
    return [mix.draw(step).tolist() for step in range(first, first + mix.steps)]


def old_order(lengths, batch_size, seed, epoch) -> list[list[int]]:
    """The order of batches before there were mixes; results of that time rest on it."""
    random = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    order = random.permutation(len(lengths))
    pools = [order[at : at + batch_size * 50] for at in range(0, len(order), batch_size * 50)]
    order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    batches = [order[at : at + batch_size].tolist() for at in range(0, len(order), batch_size)]
    return [batches[number] for number in random.permutation(len(batches))]


@pytest.mark.parametrize(("texts", "size"), [(61, 8), (64, 8), (5, 8), (1, 1), (733, 7)])
def test_one_source_comes_in_the_order_of_old(texts, size):
    lengths = np.random.default_rng(2).integers(3, 60, texts)
    mix = alone(lengths, size, 17)
    for epoch in range(3):
        assert one_pass(mix, epoch * mix.steps) == old_order(lengths, size, 17, epoch)


def test_the_order_is_the_same_on_every_machine():
    # Written down, because a run is resumed and shared between machines by this order alone.
    mix = alone(np.full(10, 4), 4, 17)
    assert one_pass(mix, 9) == [[5, 2, 6, 1], [9, 3], [0, 4, 7, 8]]


def test_the_order_follows_from_seed_and_pass():
    one, same, other = sampler(), sampler(), sampler(seed=2)
    passes = [one_pass(mix, at * mix.steps) for mix in (one, other) for at in (0, 1)]
    assert passes[0] == one_pass(same)
    assert len({json.dumps(drawn) for drawn in passes}) == 4


def test_texts_of_like_length_come_together():
    lengths = np.random.default_rng(3).integers(3, 60, 61)
    mix = alone(lengths, 8, 1)
    spread = [np.ptp(lengths[mix.draw(step)]) for step in range(mix.steps)]
    assert np.mean(spread) < 12  # of 57; at random it is about 45


@pytest.mark.parametrize(
    "weights", [(1, 1), (1, 2.3), (9, 1), (1, 1, 1), (1, 2, 0.3), (3, 7.7, 1), (1, 1, 5)]
)
def test_every_pass_and_every_batch_holds_its_share_of_each_source(weights):
    sources, relative = SOURCES[len(weights) > SOURCES], np.array(weights, float)
    mix = FixedMix(LENGTHS[: len(sources)], sources, NAMES, dict(zip(NAMES, weights)), 8, 1)
    wanted = COUNTS[0] * relative / relative[0]  # texts of a pass
    step, drawn = 0, np.zeros(len(weights))
    for number in range(1, 6):
        batches = one_pass(mix, step)
        step += len(batches)
        counts = [np.bincount(sources[rows], minlength=len(weights)) for rows in batches]
        drawn += np.sum(counts, axis=0)
        assert np.abs(drawn - number * wanted).max() <= 1  # no text more or less gets lost
        assert sorted(row for row in chain(*batches) if row < COUNTS[0]) == list(range(COUNTS[0]))
        assert sorted(map(len, batches))[1:] == [8] * (len(batches) - 1)
        for rows, count in zip(batches, counts):
            share = relative / relative.sum() * len(rows)
            assert np.abs(count - share).max() <= 1 + (len(weights) > 2) / 3


def test_every_text_of_a_source_comes_once_before_any_comes_again():
    mix = sampler(unlabelled=0.9, glossary=1.1)
    steps, seen = 0, Counter()
    for _ in range(4):
        steps += mix.steps
        seen.update(chain(*one_pass(mix, steps - mix.steps)))
        for source in range(3):
            counts = [seen[row] for row in np.flatnonzero(source == SOURCES).tolist()]
            assert max(counts) - min(counts) <= 1
    assert seen[0] == 4


def test_a_source_given_more_than_its_texts_repeats_them_in_other_orders():
    mix = sampler(glossary=1)  # 61 of 20 texts
    drawn = [row for row in chain(*one_pass(mix)) if SOURCES[row] == 2]
    assert set(Counter(drawn).values()) == {3, 4}


@pytest.mark.parametrize("kind", ["fixed", "terms", "test_transfer_set:Shifting"])
def test_a_sampler_goes_on_from_its_state_at_any_step(kind):
    """The state is JSON, holds the pass under way, and is all that decides what follows."""

    def run(mix, first: int, last: int) -> list[tuple[str, list[int]]]:
        found = []
        for step in range(first, last):
            state = json.dumps(mix.state())
            found.append((state, mix.draw(step).tolist()))
            if step % 30 == 29:  # in the middle of a pass, mostly
                mix.update(Feedback(step + 1, {}))
        return found

    def new():
        return sampler(unlabelled=1.3, glossary=0.4, kind=kind)

    whole = run(new(), 0, 150)
    for first in range(0, 150, 7):
        mix = new()
        mix.load_state(json.loads(whole[first][0]))
        assert [rows for _, rows in run(mix, first, 150)] == [rows for _, rows in whole[first:]]


def test_a_step_before_the_pass_of_the_state_cannot_be_drawn():
    mix = sampler()
    mix.draw(mix.steps)
    with pytest.raises(ValueError, match="lies before the pass"):
        mix.draw(0)


def test_a_dynamic_mix_changes_the_next_pass_and_not_the_one_under_way():
    mix, fixed = sampler(kind="test_transfer_set:Shifting"), sampler()
    assert type(mix).__name__ == "Shifting"
    steps, counts = 0, []
    for _ in range(4):
        expected = one_pass(fixed) if not steps else None
        mix.draw(steps)
        length = mix.steps
        mix.draw(steps + length // 2)
        mix.update(Feedback(steps + length // 2, {"labelled": 0.5}))
        assert mix.steps == length
        drawn = one_pass(mix, steps)
        assert expected in (None, drawn)
        counts.append(np.bincount(SOURCES[list(chain(*drawn))]).tolist())
        steps += length
    assert [unlabelled for _, unlabelled, _ in counts] == [
        *(61, 76, 95, 119),  # 61, 61 * 1.25, 61 * 1.25 ** 2 ..., each from where the last ended
    ]
    assert {labelled for labelled, *_ in counts} == {61}


def test_a_fixed_mix_stays_as_it_is():
    mix = sampler(unlabelled=2)
    before = mix.state()
    mix.update(Feedback(1, {"labelled": 9.0}))
    assert mix.state() == before


def test_sources_without_texts_are_left_out():
    empty = FixedMix(LENGTHS[:61], SOURCES[:61], NAMES, {"unlabelled": 3}, 8, 1)
    assert one_pass(empty) == one_pass(alone(LENGTHS[:61], 8, 1))
    assert FixedMix(LENGTHS[:0], SOURCES[:0], NAMES, {}, 8, 1).steps == 0


@pytest.mark.parametrize(
    "text", ["labelled", "labelled=", "=1", "labelled=x", "labelled=0", "labelled=-1"]
)
def test_a_mix_that_cannot_be_read_is_said_in_one_line(text):
    with pytest.raises(InputError, match=rf"^mix: '{text}' cannot be read: write [^\n]+$"):
        TransferConfig(mix=text)


def test_a_mix_names_every_source_once_and_none_that_is_not_given():
    assert parse_mix(" labelled=1, unlabelled = 2.5,") == {"labelled": 1, "unlabelled": 2.5}
    for text in ("labelled=1,labelled=2", "labelled=nan", "labelled=inf"):
        with pytest.raises(InputError, match=r"^mix: '[^']+' cannot be read"):
            parse_mix(text)
    with pytest.raises(InputError, match=r"^mix: no source 'glossary' is given: name .*labelled$"):
        TransferConfig(mix="labelled=1,glossary=2")
    assert TransferConfig(glossary="x", mix="glossary=2").sources == ("labelled", "glossary")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fixd", "sampler: 'fixd' unknown: choose of fixed, terms, or package.module:Class"),
        ("nosuch:Mix", "sampler: 'nosuch:Mix' cannot be imported"),
        ("json:Mix", "sampler: 'json:Mix' cannot be imported"),
    ],
)
def test_an_unknown_sampler_is_said_in_one_line(kind, message):
    with pytest.raises(InputError, match=f"^{message}"):
        sampler(kind=kind)


def test_texts_weigh_what_their_terms_say():
    words = Ragged.of_lengths(np.array([7, 7, 7, 9, 7, 9, 4]), np.array([2, 2, 0, 1, 2]))
    # 7 is in three texts, 9 in two, 4 in one; a word counts once in a text.
    assert term_weights(words, 1) == pytest.approx([1 / 3, 5 / 6, 0, 1 / 3, 3 / 2])
    assert term_weights(words, 0).tolist() == [1, 2, 0, 1, 2]
    assert term_weights(words, 1).sum() == pytest.approx(3)  # each word one in all
    nothing = Ragged.of_lengths(np.zeros(0, int), np.zeros(3, int))
    assert term_weights(nothing).tolist() == [1, 1, 1]


def test_by_terms_rare_ones_come_as_often_as_frequent_ones_and_sources_keep_their_shares():
    words, mix = zipfian_words(), sampler(unlabelled=3, kind="terms")
    fixed = sampler(unlabelled=3)
    drawn, plain = ([row for row in chain(*one_pass(m)) if SOURCES[row] == 1] for m in (mix, fixed))
    assert len(drawn) == len(plain) == 183
    assert mix.steps == fixed.steps

    def spread(rows: list[int]) -> float:
        """How unequally often words come, among those in the unlabelled texts."""
        every = np.unique(words.take(np.flatnonzero(SOURCES == 1)).flat())
        seen = Counter(words.take(np.array(rows)).flat().tolist())
        counts = np.array([seen[word] for word in every.tolist()])
        assert counts.min() > 0
        return counts.std() / counts.mean()

    assert spread(drawn) < 0.6 * spread(plain)
    labelled = [row for row in chain(*one_pass(mix)) if SOURCES[row] == 0]
    assert sorted(labelled) == list(range(COUNTS[0]))


def test_sampling_by_terms_needs_texts_to_draw_from():
    with pytest.raises(InputError, match=r"^sampler: terms draws from further sources, and there"):
        TransferConfig(sampler="terms")
