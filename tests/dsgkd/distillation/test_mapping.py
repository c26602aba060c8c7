import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsgkd.distillation.mapping import LayerMapping
from dsgkd.errors import InputError

counts = st.integers(1, 99)
mappings = st.one_of(
    st.builds(LayerMapping, st.just("uniform"), st.none() | counts, embeddings=st.booleans()),
    st.builds(LayerMapping, st.sampled_from(["last", "first"]), counts, embeddings=st.booleans()),
    st.builds(
        LayerMapping,
        st.just("explicit"),
        pairs=st.lists(st.tuples(counts, counts), min_size=1, max_size=5).map(tuple),
        embeddings=st.booleans(),
    ),
)
depths = st.integers(1, 30)


@settings(deadline=None)
@given(mappings)
def test_what_is_written_reads_back_the_same(mapping):
    assert LayerMapping.parse(str(mapping)) == mapping


@pytest.mark.parametrize(
    ("text", "student", "teacher", "pairs"),
    [
        ("uniform", 12, 12, [(k, k) for k in range(1, 13)]),
        ("uniform", 4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        ("uniform", 12, 4, list(zip(range(1, 13), [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]))),
        ("uniform", 12, 6, list(zip(range(1, 13), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]))),
        ("uniform-2", 4, 12, [(2, 6), (4, 12)]),
        ("uniform-3", 4, 4, [(1, 1), (3, 3), (4, 4)]),
        ("uniform-1", 2, 4, [(2, 4)]),
        ("last-2", 4, 12, [(3, 11), (4, 12)]),
        ("first-3", 4, 12, [(1, 1), (2, 2), (3, 3)]),
        ("1:3,2:6", 2, 6, [(1, 3), (2, 6)]),
        ("2:1+emb", 2, 6, [(0, 0), (2, 1)]),
        (" uniform+emb ", 2, 4, [(0, 0), (1, 2), (2, 4)]),
        ("last-1+emb", 2, 4, [(0, 0), (2, 4)]),
    ],
)
def test_layers_are_paired_as_written(text, student, teacher, pairs):
    assert LayerMapping.parse(text).resolve(student, teacher) == tuple(pairs)


@settings(deadline=None)
@given(depths, depths, st.data())
def test_uniform_ends_at_the_last_layers_and_never_goes_back(student, teacher, data):
    count = data.draw(st.none() | st.integers(1, student))
    pairs = LayerMapping("uniform", count).resolve(student, teacher)
    ours, theirs = zip(*pairs)
    assert pairs[-1] == (student, teacher)
    assert len(pairs) == len(set(ours)) == (count or student)
    assert list(ours) == sorted(ours)
    assert list(theirs) == sorted(theirs)
    assert set(theirs) <= set(range(1, teacher + 1))


@pytest.mark.parametrize(
    ("text", "student", "teacher"),
    [
        ("uniform-5", 4, 12),
        ("last-5", 4, 12),
        ("last-5", 12, 4),
        ("first-5", 12, 4),
        ("first-5", 4, 12),
        ("1:5", 4, 4),
        ("5:1", 4, 4),
        ("0:1", 4, 4),
        ("1:0", 4, 4),
    ],
)
def test_layers_that_do_not_exist_are_a_users_error(text, student, teacher):
    with pytest.raises(InputError, match=f"^layer mapping {text}: .*layers.*: map fewer layers$"):
        LayerMapping.parse(text).resolve(student, teacher)


BAD_COUNTS = ["last", "first", "uniform-", "uniform-0", "last-0", "last--1", "uniform-2.5"]
BAD_PAIRS = ["1:2:3", "1-2", "1:2,", "1:2;3:4", ":1"]


@pytest.mark.parametrize(
    "text", ["", "all", "Uniform", "+emb", "uniform+x", *BAD_COUNTS, *BAD_PAIRS]
)
def test_what_is_no_mapping_is_a_users_error(text):
    with pytest.raises(InputError, match=r"layer mapping: .* not understood: write uniform"):
        LayerMapping.parse(text)
