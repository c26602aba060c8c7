"""The choices that the library made by measurement, measured again.

A ratio is the alternative's time over that of the library's choice: above 1, the choice is right.
"""

import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, Section, ratio
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertForSequenceClassification,
    BertModel,
)
from transformers.masking_utils import eager_mask
from workload import (
    BASE,
    MINI,
    VOCABULARY,
    Arm,
    Kind,
    Setting,
    Shape,
    apart,
    arms_of,
    in_turns,
    populate_store,
    spent,
    step_seconds,
    synthetic_texts,
)

import dsgkd.models.attention as attention
from dsgkd.alignment.batch import Batch, Collator, evaluation_batches
from dsgkd.models.taps import run_model

RECOMPUTED = "bench_recomputed"


def run(quick: bool) -> Section:
    """Measure all choices on the CPU, one thread."""
    torch.set_num_threads(1)
    compiled, said = compiled_rows(quick)
    rows = [
        *optimizer_rows(quick),
        *attention_rows(quick),
        *pooling_rows(quick),
        *compiled,
        *evaluation_rows(quick),
    ]
    notes = [
        "ratio: the alternative's time over ours, in the same rounds; above 1 ours is faster",
        "optimizer: its step alone, on gradients that are there; in the loop's parameter groups",
        "attention: forward and backward pass of the encoder in training mode, batch 16, some "
        "texts padded",
        "attention rows of words: a whole step with hidden states and attention, stored teacher",
        "evaluation: all texts once, student alone; ours: sorted by length, 32 in a batch",
        *said,
        "one thread, on the CPU",
    ]
    return Section("Choices made by measurement", rows, notes)


def row(choice: str, case: str, ours: str, other: str, seconds: dict[str, list[float]]) -> Row:
    """Return a row; `seconds` are those of `ours` and `other`."""
    return {
        "choice": choice,
        "case": case,
        "ours": ours,
        "ours ms": statistics.median(seconds[ours]) * 1e3,
        "alternative": other,
        "alternative / ours": ratio(seconds[other], seconds[ours]),
    }


def optimizer_rows(quick: bool) -> list[Row]:
    """AdamW: fused, over lists of tensors, or tensor by tensor."""
    found = []
    for shape in (MINI, BASE):
        setting = Setting(shape, 1, False)
        trained = Arm(setting, "live", setting.texts(1)).optimizer.param_groups
        groups = [{k: group[k] for k in ("params", "lr", "weight_decay")} for group in trained]
        for parameter in (parameter for group in groups for parameter in group["params"]):
            parameter.grad = torch.randn_like(parameter)
        ways: dict[str, dict[str, bool]] = {
            "fused": {"fused": True},
            "foreach": {"foreach": True},
            "plain loop": {"foreach": False, "fused": False},
        }
        # Each has its own moments; all of them change the same weights, which costs none of them.
        optimizers = {
            way: torch.optim.AdamW([dict(group) for group in groups], **flags)
            for way, flags in ways.items()
        }
        steps: dict[str, Callable[[], Any]] = {way: o.step for way, o in optimizers.items()}
        in_turns(steps, 1)  # makes the moments
        seconds = in_turns(steps, 2 if quick else 15)
        found += [
            row("AdamW", f"{shape}", "fused", other, seconds) for other in ("foreach", "plain loop")
        ]
    return found


def attention_rows(quick: bool) -> list[Row]:
    """Plain attention or PyTorch's fused one, in training."""
    ours = attention.attention_for("cpu")
    other = next(name for name in ("dsgkd_fused", "dsgkd_plain") if name != ours)
    found = []
    for shape in (MINI,) if quick else (Shape("tiny", 2, 128, 2), MINI):
        for length in (48,) if quick else (48, 128, 256):
            for bf16 in (False, True):
                seconds = attention_seconds(shape, length, bf16, (ours, other), 3 if quick else 9)
                case = f"{shape}, length {length}, {'bf16' if bf16 else 'fp32'}"
                found.append(row("attention", case, ours, other, seconds))
    return found


def attention_seconds(
    shape: Shape, length: int, bf16: bool, names: tuple[str, ...], rounds: int
) -> dict[str, list[float]]:
    """Time the forward and backward pass of one encoder with several attentions."""
    encoders = {}
    for name in names:
        torch.manual_seed(0)
        encoders[name] = BertModel(shape.config("cpu", name), add_pooling_layer=False).train()
    ids = torch.randint(5, VOCABULARY, (16, length))
    mask = torch.ones_like(ids)
    mask[::2, -length // 8 :] = 0

    def forth_and_back(encoder: BertModel) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = encoder(ids, attention_mask=mask).last_hidden_state
        states.float().square().mean().backward()
        encoder.zero_grad(set_to_none=True)

    actions = {name: partial(forth_and_back, encoder) for name, encoder in encoders.items()}
    in_turns(actions, 1)
    return in_turns(actions, rounds)


def _recomputing_attention(
    module: nn.Module,
    query: Tensor,  # [batch, heads, length, head width]
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend plainly, and let open taps compute the words' rows again, as with fused attention.

    The taps have no public handle, because no attention but the library's two needs one.
    """
    for tap in attention._open_taps.get():
        if tap.wants_next:
            factor = attention._scaling(query, scaling)
            tap.compute(query, key, attention_mask, factor, dropout)
        else:
            tap.skip()
    with attention.tapped([]):
        return attention._plain_attention(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )


AttentionInterface.register(RECOMPUTED, _recomputing_attention)
AttentionMaskInterface.register(RECOMPUTED, eager_mask)


def pooling_rows(quick: bool) -> list[Row]:
    """The words' attention: pooled where it is computed, or computed again."""
    rounds = 4 if quick else 11
    found = []
    for bf16 in (True,) if quick else (False, True):
        for batch in (8,) if quick else (8, 32):
            setting = Setting(MINI, batch, bf16)
            texts = setting.texts(batch * (rounds + 1))
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "store"
                populate_store(setting, texts, folder)
                arms = {
                    "pooled where computed": Arm(setting, "stored", texts, folder),
                    "computed again": Arm(setting, "stored", texts, folder, RECOMPUTED),
                }
                for arm in arms.values():
                    arm.warm_up()
                seconds = step_seconds(arms, rounds)
            case = f"step of {MINI}, batch {batch}, {setting.precision}"
            found.append(row("attention rows of words", case, *arms, seconds))
    return found


def compiled_rows(quick: bool) -> tuple[list[Row], list[str]]:
    """The student as it is, or compiled; in a process of its own with an empty cache."""
    choice, ours = "torch.compile", "as it is"
    if quick:
        return [], [f"{choice}: not measured when quick, because compiling alone takes minutes"]
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return [], [f"{choice}: not measured, there is no C++ compiler here"]
    found, said = [], []
    kinds: tuple[Kind, ...] = ("plain", "stored")
    for kind in kinds:
        context = multiprocessing.get_context("spawn")
        try:
            seconds, start = apart(context, partial(compiled_seconds, kind))
        except (RuntimeError, BrokenProcessPool) as error:  # PyTorch's compiler raises only these
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            said.append(f"{choice}, {kind} step: failed: {reason[:200]}")
            continue
        case = f"{kind} step of {MINI}, batch 16, bf16"
        found.append(row(choice, case, ours, "compiled", seconds))
        found[-1]["at start s"] = start
        saved = statistics.median(seconds[ours]) - statistics.median(seconds["compiled"])
        worth = f"repaid after {start / saved:,.0f} steps" if saved > 0 else "never repaid"
        said.append(
            f"{choice}, {kind} step: {start:.1f} s at the start of every process (steps at every "
            f"padded length, less the same steps afterwards), {worth}"
        )
    return found, said


def compiled_seconds(kind: Kind) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of steps, and those that compiling took at the start."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        rounds = 15
        setting = Setting(MINI, 16, True, lengths=(64, 96))
        with arms_of(setting, (kind,), setting.batch * (rounds + 1)) as made:
            ours = made[kind]
            folders = [t.states.storage.folder for t in ours.run.teachers if t.states]
            # A compiled student, in place: the library sees the same module.
            compiled = Arm(setting, kind, ours.run.texts, *folders)
            compiled.run.student.compile(dynamic=True)
            first = spent(compiled.warm_up)
            start = first - spent(compiled.warm_up)
            arms = {"as it is": ours, "compiled": compiled}
            return step_seconds(arms, rounds), start


def evaluation_rows(quick: bool) -> list[Row]:
    """Texts sorted by length or as they come, in batches of 32 or of 128."""
    count, rounds, longest = (256, 2, 64) if quick else (1024, 5, 192)
    texts = synthetic_texts(count, (0, 0), (16, longest)).alone()
    student, collate = BertForSequenceClassification(MINI.config("cpu")).eval(), Collator(1)

    def sorted_batches(size: int) -> Iterator[Batch]:
        return evaluation_batches(texts, size, collate)

    def unsorted_batches(size: int) -> Iterator[Batch]:
        for first in range(0, len(texts), size):
            yield collate(texts, np.arange(first, min(first + size, len(texts))))

    ways = {"sorted, 32": (sorted_batches, 32), "unsorted, 32": (unsorted_batches, 32)}
    ways |= {"unsorted, 128": (unsorted_batches, 128), "sorted, 128": (sorted_batches, 128)}

    def predict(batches: Callable[[int], Iterator[Batch]], size: int, bf16: bool) -> None:
        for batch in batches(size):
            with (
                torch.inference_mode(),
                torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            ):
                run_model(student, batch.student)

    found = []
    for bf16 in (True,) if quick else (False, True):
        actions = {name: partial(predict, *way, bf16) for name, way in ways.items()}
        in_turns(actions, 1)
        seconds = in_turns(actions, rounds)
        case = f"{MINI}, {count} texts of 16-{longest} tokens, {'bf16' if bf16 else 'fp32'}"
        found += [row("evaluation", case, "sorted, 32", o, seconds) for o in list(ways)[1:]]
    return found
