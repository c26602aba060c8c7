import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from dsgkd.errors import InputError
from dsgkd.models import hub as zoo
from dsgkd.models.hub import depth, load_config, load_model, load_tokenizer, resolve


@pytest.fixture
def folder(tmp_path, make_model, word_tokenizer):
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    word_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def hub(monkeypatch):
    """Answers for the hub: `answer(error)` makes every question end in that error."""
    asked = []

    def answer(error: Exception | None = None) -> list[tuple[str, dict[str, Any]]]:
        def metadata(url, **options):
            asked.append((url, options))
            if error:
                raise error

        monkeypatch.setattr(zoo, "try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr(zoo, "get_hf_file_metadata", metadata)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        return asked

    return answer


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("kobert", "kykim/bert-kor-base"),
        ("bert", "bert-base-uncased"),
        ("mbert", "bert-base-multilingual-uncased"),
        ("cbert", "emilyalsentzer/Bio_ClinicalBERT"),
        ("roberta", "roberta-base"),
        ("bio_roberta", "allenai/biomed_roberta_base"),
        ("bio_mbert", "StivenLancheros/mBERT-base-Biomedical-NER"),
        ("someone/some-model", "someone/some-model"),
    ],
)
def test_names_of_the_reference_stand_for_hub_ids(name, hub_id, hub):
    asked = hub()
    assert resolve(name) == hub_id
    assert hub_id in asked[0][0]


def test_a_local_folder_is_itself(folder, hub):
    hub(AssertionError("asked the hub"))
    assert resolve(str(folder)) == str(folder)


def test_a_folder_or_path_without_a_model_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json, so no model"):
        resolve(str(tmp_path))
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "none", "./none"):
        with pytest.raises(InputError, match="not a model folder: check the path"):
            resolve(str(path))


def test_km_bert_has_no_public_weights():
    with pytest.raises(InputError, match="kmbert: its checkpoints are not on the hub"):
        resolve("kmbert")


class ClientError(Exception):
    """As the HTTP client's own, which differ between versions of the hub's library."""


@pytest.mark.parametrize("error", [ConnectionError(), TimeoutError(), ClientError()])
def test_a_hub_that_cannot_be_reached_is_a_users_error_naming_what_else_there_is(error, hub):
    asked = hub(error)
    with pytest.raises(InputError, match=r"cannot be reached: .*folder.*--student-corpus.*tiny-ko"):
        resolve("kobert")
    assert len(asked) == 1
    _, options = asked[0]
    assert options["timeout"] <= 5
    assert not options["retry_on_errors"]


def test_offline_the_hub_is_not_asked(hub, monkeypatch):
    asked = hub()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"not in the cache, and HF_HUB_OFFLINE is set: .*tiny-ko"):
        resolve("roberta")
    assert asked == []


def test_what_is_no_hub_id_is_a_users_error(hub):
    hub()
    for name in ("a/b/c", "two words"):
        with pytest.raises(InputError, match="neither a folder nor a hub id"):
            resolve(name)


def test_a_model_in_the_cache_needs_no_hub(hub, monkeypatch):
    hub(AssertionError("asked the hub"))
    monkeypatch.setattr(zoo, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    assert resolve("bert") == "bert-base-uncased"


@pytest.mark.slow
def test_models_load_in_float32_and_leave_the_random_state(folder, make_model):
    make_model().bfloat16().save_pretrained(folder)
    before = torch.get_rng_state()
    model = load_model(str(folder), "dsgkd_plain")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "dsgkd_plain"
    weight, expected = model.get_input_embeddings().weight, make_model().get_input_embeddings()
    assert torch.equal(weight, expected.weight.bfloat16().float())


def test_the_random_twin_shares_the_architecture_and_nothing_else(folder, make_model):
    make_model().bfloat16().save_pretrained(folder)
    before = torch.get_rng_state()
    twin, again, other = (
        load_model(str(folder), "dsgkd_plain", random_weights_seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    model = load_model(str(folder), "dsgkd_plain")
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (twin, model)]
    assert shapes[0] == shapes[1]
    assert twin.dtype == torch.float32
    for name, parameter in twin.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if parameter.ndim > 1:
            assert not torch.equal(parameter, other.get_parameter(name))
            assert not torch.equal(parameter, model.get_parameter(name))


@pytest.mark.parametrize("seed", [None, 3])
def test_fields_of_the_configuration_can_be_changed(folder, seed):
    auto_class = AutoModelForSequenceClassification
    model = load_model(str(folder), "dsgkd_plain", auto_class, seed, num_labels=7)
    assert model.classifier.weight.shape == (7, 32)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_depth_is_the_number_of_layers_in_every_family(family, make_model, tmp_path):
    make_model(family).save_pretrained(tmp_path)
    assert depth(load_config(str(tmp_path))) == 3


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "deberta"])
@pytest.mark.parametrize("lost", ["an encoder tensor", "the pooler", "nothing"])
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
def test_weights_of_the_encoder_may_not_be_missing_but_a_head_may(
    lost, auto_class, family, make_model, tmp_path
):
    make_model(family).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    if lost == "the pooler":
        weights = {name: t for name, t in weights.items() if "pooler" not in name}
    name = next(name for name in weights if ".1." in name)
    if lost == "an encoder tensor":
        del weights[name]
    save_file(weights, file, {"format": "pt"})
    if lost != "an encoder tensor":
        load_model(str(tmp_path), "dsgkd_plain", auto_class)
        return
    with pytest.raises(InputError, match=r"its weights lack tensors \(1: \S*" + name) as caught:
        load_model(str(tmp_path), "dsgkd_plain", auto_class)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused_by_name(folder, make_model):
    make_model("electra").save_pretrained(folder)
    make_model("bert").config.save_pretrained(folder)
    with pytest.raises(InputError, match=r"lack tensors \(\d+: .*, \.\.\.\)|cannot be loaded"):
        load_model(str(folder), "dsgkd_plain")


def test_a_head_for_masked_words_may_be_new(folder):
    assert load_model(str(folder), "dsgkd_plain", AutoModelForMaskedLM).cls is not None


@pytest.mark.parametrize("load", [load_config, load_tokenizer, lambda f: load_model(f, "eager")])
def test_code_of_a_models_own_is_never_run_and_nobody_is_asked(load, folder, monkeypatch):
    file = folder / "config.json"
    theirs = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config = json.loads(file.read_text()) | {"model_type": "evil", "auto_map": theirs}
    file.write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}})
    )
    (folder / "evil.py").write_text("raise SystemExit('remote code was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    with pytest.raises(InputError, match="it needs code of its own, which is never run"):
        load(str(folder))


@pytest.mark.parametrize("damage", ["cut", "missing", "other shape"])
def test_weights_that_cannot_be_read_are_a_users_error(damage, folder, make_model):
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    else:
        make_model(hidden_size=64).config.save_pretrained(folder)
    with pytest.raises(InputError, match="its model cannot be loaded") as caught:
        load_model(str(folder), "dsgkd_plain")
    assert "\n" not in str(caught.value)


def test_a_damaged_configuration_is_a_users_error(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="its configuration cannot be loaded"):
        load_config(str(folder))


def test_the_tokenizer_comes_with_the_model(folder):
    assert load_tokenizer(str(folder))("w5 w7 unheard")["input_ids"] == [2, 5, 7, 1, 3]


def test_a_folder_without_tokenizer_is_a_users_error(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(str(folder))


def test_a_tokenizer_that_is_not_fast_is_a_users_error(folder, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(zoo.AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(InputError, match="not a fast one"):
        load_tokenizer(str(folder))
