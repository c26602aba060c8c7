"""Recipes: every link is made once, and the run after it starts from its weights."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel
from watched_runs import facts

from dsgkd.data.transfer_set import TransferConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.student import encoder_of
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training import recipe
from dsgkd.training.config import LinkConfig, OptimisationConfig, RunConfig
from dsgkd.training.loop import train
from dsgkd.training.opening import open_run
from dsgkd.training.recipe import links_of, make_links, resolved, train_link

STORE = StoreConfig()
BRIEF = OptimisationConfig(epochs=2, batch_size=24, encoder_lr=2e-3, precision="fp32")


@pytest.fixture
def run(make_config: Callable[..., RunConfig]) -> RunConfig:
    return make_config(optimisation={"epochs": 1})


@pytest.fixture
def masked(transfer: TransferConfig) -> LinkConfig:
    return LinkConfig("adapt", MaskedLanguageModel(), transfer=transfer, optimisation=BRIEF)


@pytest.fixture
def distilled(transfer: TransferConfig, zoo: Path) -> LinkConfig:
    """On unlabelled texts, without any task."""
    teacher = DistillationConfig(str(zoo / "teacher"))
    return LinkConfig("distil", NoTask(), teacher, transfer, BRIEF)


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "artefacts")


def encoder_weights(config: RunConfig, cache: Path) -> dict[str, torch.Tensor]:
    return encoder_of(open_run(config, cache).student).state_dict()


@pytest.mark.parametrize("kind", ["masked", "distilled"])
def test_a_run_starts_from_the_student_of_its_link(
    kind: str,
    run: RunConfig,
    cache: Path,
    tmp_path: Path,
    artefacts: Artefacts,
    request: pytest.FixtureRequest,
) -> None:
    chain = replace(run, links=(request.getfixturevalue(kind),))
    with pytest.raises(InputError, match="it was not made yet"):
        resolved(chain, artefacts, cache)
    make_links(chain, artefacts, cache, STORE)
    (link,) = links_of(chain, cache)

    ready = resolved(chain, artefacts, cache)
    assert ready.links == ()
    assert ready == replace(run, student=replace(run.student, model=ready.student.model))
    folder = artefacts.get(link.key)
    assert ready.student.model == str(folder)
    made = AutoModel.from_pretrained(folder).state_dict()
    begun, fresh = encoder_weights(ready, cache), encoder_weights(run, cache)
    learnt = [name for name in begun if "pooler" not in name and "position_ids" not in name]
    assert all(torch.equal(begun[name], made[name]) for name in learnt)
    assert any(not torch.equal(begun[name], fresh[name]) for name in learnt)
    (result,) = train(open_run(ready, cache), Checkpoints(tmp_path / "run"))
    assert list(result.weighted) == ["ce"]


def test_a_link_of_distillation_alone_is_judged_by_its_terms(
    run: RunConfig, distilled: LinkConfig, cache: Path, tmp_path: Path, artefacts: Artefacts
) -> None:
    (link,) = links_of(replace(run, links=(distilled,)), cache)
    results = list(train_link(link, artefacts, cache, STORE, Checkpoints(tmp_path / "link")))

    assert [list(result.weighted) for result in results] == [["task", "hidden"]] * 2
    assert all(result.weighted["task"] == 0 for result in results)
    assert results[1].weighted["hidden"] < results[0].weighted["hidden"]
    assert results[0].validation.keys() == {"loss", "explained"}
    assert results[0].validation["explained"] < results[1].validation["explained"] < 1
    assert 0 < results[1].validation["loss"] < results[0].validation["loss"]
    assert results[1].best_objective == results[1].validation["loss"]


def test_the_artefact_is_there_before_the_last_result_and_the_same_after_an_interruption(
    run: RunConfig, masked: LinkConfig, cache: Path, tmp_path: Path, artefacts: Artefacts
) -> None:
    (link,) = links_of(replace(run, links=(masked,)), cache)
    other = Artefacts(tmp_path / "others")
    expected = list(train_link(link, other, cache, STORE, Checkpoints(tmp_path / "whole")))

    first = train_link(link, artefacts, cache, STORE, Checkpoints(tmp_path / "cut"))
    said = [next(first)]
    first.close()
    assert artefacts.get(link.key) is None
    for result in train_link(link, artefacts, cache, STORE, Checkpoints(tmp_path / "cut")):
        said.append(result)
        assert (artefacts.get(link.key) is not None) == result.finished

    assert facts(said) == facts(expected)
    for name in ("model.safetensors", "tokenizer.json"):
        folders = [each.get(link.key) for each in (artefacts, other)]
        one, two = ((folder / name).read_bytes() for folder in folders if folder)
        assert one == two


def test_a_link_is_made_once(
    run: RunConfig,
    masked: LinkConfig,
    cache: Path,
    artefacts: Artefacts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    original = recipe.train_link

    def counting(link: Any, *args: Any) -> Any:
        made.append(link.name)
        return original(link, *args)

    monkeypatch.setattr(recipe, "train_link", counting)
    make_links(replace(run, links=(masked,)), artefacts, cache, STORE)
    # Another run with other settings of its own, and the same link under another name.
    other = replace(run, seed=run.seed, optimisation=replace(run.optimisation, epochs=3))
    make_links(replace(other, links=(masked,)), artefacts, cache, STORE)

    assert made == ["adapt"]
    assert not list((cache / "links").rglob("*.safetensors"))


def test_a_link_after_a_link_starts_from_its_student(
    run: RunConfig,
    masked: LinkConfig,
    distilled: LinkConfig,
    cache: Path,
    tmp_path: Path,
    artefacts: Artefacts,
) -> None:
    chain = replace(run, links=(masked, distilled))
    first, second = links_of(chain, cache)
    assert first == links_of(replace(run, links=(masked,)), cache)[0]
    assert second.key != links_of(replace(run, links=(distilled,)), cache)[0].key
    with pytest.raises(InputError, match="it was not made yet"):
        next(train_link(second, artefacts, cache, STORE, Checkpoints(tmp_path / "early")))

    make_links(chain, artefacts, cache, STORE)

    frozen = replace(distilled, optimisation=replace(BRIEF, epochs=1, encoder_lr=1e-12))
    still = replace(run, links=(masked, frozen))
    make_links(still, artefacts, cache, STORE)
    adapted = artefacts.get(first.key)
    start = AutoModel.from_pretrained(adapted).state_dict()
    same = encoder_weights(resolved(still, artefacts, cache), cache)
    changed = encoder_weights(resolved(chain, artefacts, cache), cache)
    name = "encoder.layer.0.attention.self.query.weight"
    torch.testing.assert_close(same[name], start[name], rtol=0, atol=1e-8)
    assert not torch.allclose(changed[name], start[name], rtol=0, atol=1e-8)


def key(run: RunConfig, cache: Path) -> str:
    return links_of(run, cache)[-1].key


def test_the_key_is_that_of_content_wherever_it_lies(
    run: RunConfig, distilled: LinkConfig, cache: Path, tmp_path: Path, zoo: Path
) -> None:
    chain = replace(run, links=(distilled,))
    (given,) = distilled.transfer.unlabelled
    moved = [tmp_path / name for name in ("other.txt", "words.txt", "notes-2.csv")]
    sources = (given, distilled.transfer.glossary, run.data.path)
    for source, place in zip(sources, moved, strict=True):
        shutil.copy(source, place)
    for name in ("student", "teacher"):
        shutil.copytree(zoo / name, tmp_path / "models" / f"my-{name}")
    models = tmp_path / "models"
    elsewhere = replace(
        distilled,
        name="adaptation",
        transfer=replace(distilled.transfer, unlabelled=(str(moved[0]),), glossary=str(moved[1])),
        distillation=replace(distilled.distillation, teacher=str(models / "my-teacher")),
    )
    same = replace(
        run,
        data=replace(run.data, path=str(moved[2])),
        student=replace(run.student, model=str(models / "my-student")),
        links=(elsewhere,),
    )

    assert key(same, cache) == key(chain, cache)
    # What comes after a link does not decide it.
    later = replace(run.optimisation, epochs=7)
    assert key(replace(chain, optimisation=later), cache) == key(chain, cache)


def test_the_key_differs_with_whatever_decides_the_student(
    run: RunConfig,
    distilled: LinkConfig,
    masked: LinkConfig,
    cache: Path,
    tmp_path: Path,
    zoo: Path,
) -> None:
    (given,) = distilled.transfer.unlabelled
    more = tmp_path / "more.txt"
    more.write_text(Path(given).read_text(encoding="utf-8") + "\n어제 rash", encoding="utf-8")

    def link(**changes: Any) -> RunConfig:
        return replace(run, links=(replace(distilled, **changes),))

    def distil(**changes: Any) -> RunConfig:
        return link(distillation=replace(distilled.distillation, **changes))

    def transfer(**changes: Any) -> RunConfig:
        return link(transfer=replace(distilled.transfer, **changes))

    chains = [
        link(),
        replace(run, links=(masked,)),
        replace(link(), seed=18),
        replace(link(), max_length=40),
        replace(link(), student=replace(run.student, model=str(zoo / "still-student"))),
        link(optimisation=replace(BRIEF, epochs=1)),
        distil(alpha=2.0),
        distil(teacher=str(zoo / "roberta")),
        distil(teacher=f"{zoo / 'teacher'}+{zoo / 'roberta'}"),
        distil(teacher=f"2*{zoo / 'teacher'}+{zoo / 'roberta'}"),
        distil(mapping="last-1"),
        transfer(unlabelled=(str(more),)),
        transfer(glossary=""),
        transfer(mix="unlabelled=3"),
        replace(run, links=(distilled, distilled)),
    ]
    keys = [key(chain, cache) for chain in chains]
    assert len(set(keys)) == len(chains)
    assert all(len(each) == 32 for each in keys)
