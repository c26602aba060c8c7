import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import load_state, save_state


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "state.safetensors"
    shared = torch.arange(6).reshape(2, 3)
    state = {
        "weights": {0: shared.t(), "again": shared, "half": torch.tensor([1 / 3]).bfloat16()},
        "betas": (0.9, 0.999),
        "nested": [{"tensor": 1, "dict": [None, True]}, (1, [2.5, "셋"], ()), {}],
        "tiny": 0.1 + 0.2,
        "scalar": torch.tensor(3.0, dtype=torch.float64),
    }
    save_state(path, state)
    loaded = load_state(path)

    assert torch.equal(loaded["weights"].pop(0), shared.t())
    assert torch.equal(loaded["weights"].pop("again"), shared)
    assert torch.equal(loaded["weights"].pop("half"), torch.tensor([1 / 3]).bfloat16())
    assert loaded.pop("scalar").dtype == torch.float64
    assert loaded == {k: v for k, v in state.items() if k != "scalar"} | {"weights": {}}
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_the_tensors_are_readable_by_anyone_who_reads_safetensors(tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", {"weight": torch.ones(2)})

    (tensor,) = load_file(tmp_path / "state.safetensors").values()
    assert tensor.tolist() == [1, 1]


def test_a_saved_tensor_is_a_copy(tmp_path: Path) -> None:
    weight = torch.ones(2)
    save_state(tmp_path / "a", {"weight": weight})
    weight.zero_()

    assert load_state(tmp_path / "a")["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, {"weight": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-50] if damage is None else damage)

    with pytest.raises(InputError, match=r"last\.safetensors: not a whole checkpoint"):
        load_state(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors: no such checkpoint"):
        load_state(tmp_path / "none.safetensors")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="choose another --out"):
        save_state(tmp_path / "file" / "last.safetensors", {"weight": torch.ones(1)})


def test_a_disk_with_no_room_is_one_line_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, {"weight": torch.ones(1)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))  # the kernel refuses more
    try:
        with pytest.raises(InputError, match=r"last\.safetensors: .*: choose another"):
            save_state(path, {"weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert load_state(path)["weight"].tolist() == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, {"weight": torch.ones(1)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dsgkd.storage.atomic.os.replace", full)
    with pytest.raises(InputError, match="no space left on the disk"):
        save_state(path, {"weight": torch.zeros(1)})

    assert load_state(path)["weight"].tolist() == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_empty_and_tied_tensors_and_an_empty_state_come_back(tmp_path: Path) -> None:
    tied = torch.randn(3)
    save_state(tmp_path / "a", {"in": tied, "out": tied, "none": torch.empty(0, 4)})
    loaded = load_state(tmp_path / "a")
    assert torch.equal(loaded["in"], tied)
    assert torch.equal(loaded["out"], tied)
    assert loaded["none"].shape == (0, 4)

    save_state(tmp_path / "b", {})
    assert load_state(tmp_path / "b") == {}


def test_an_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for step in range(count):
            weight.grad = weight.detach().cos() + step
            optimizer.step()

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        return weight, torch.optim.AdamW([weight], lr=0.01, betas=(0.8, 0.99), fused=True)

    weight, optimizer = fresh()
    steps(weight, optimizer, 3)
    save_state(tmp_path / "a", {"weight": weight, "optimizer": optimizer.state_dict()})
    steps(weight, optimizer, 2)

    other, resumed = fresh()
    state = load_state(tmp_path / "a")
    other.data.copy_(state["weight"])
    resumed.load_state_dict(state["optimizer"])
    steps(other, resumed, 2)
    assert torch.equal(weight, other)


def test_an_interruption_while_writing_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dsgkd.storage.atomic.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "a", {"weight": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []
