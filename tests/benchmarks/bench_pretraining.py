"""Throughput of masked-LM pre-training: the project's one loop over a loop written for it alone.

The loop's side is `train` on what `open_pretraining` returns, as `dsgkd pretrain` calls it, with
an epoch for each round; its seconds are those that it reports of training. The bare loop starts
from the same weights and reads the same blocks in the same order.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Row, Section, ratio
from torch import Tensor, nn
from transformers import BertForMaskedLM, get_linear_schedule_with_warmup

from dsgkd.data.world import WorldConfig, english_corpus
from dsgkd.models.masked import MaskedStudent
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import train
from dsgkd.training.on_the_fly import TINY
from dsgkd.training.opening import OpenRun, where_to_run
from dsgkd.training.pretraining import open_pretraining
from dsgkd.training.pretraining_config import PretrainingConfig

AIM = 0.97


def run(quick: bool) -> Section:
    """Compare both loops on the two shapes that the project pre-trains."""
    torch.set_num_threads(1)
    shapes = {"tiny": TINY, "default": PretrainingConfig()}
    has_bf16 = where_to_run(RunConfig())[1]
    rounds, steps = (5, 10) if quick else (25, 30)
    rows = [
        measured(name, config, bf16, rounds, steps)
        for name, config in shapes.items()
        for bf16 in ([False, True] if has_bf16 else [False])
    ]
    missed = [f"{row['model']} {row['precision']}" for row in rows if row[RATIO].median < AIM]
    notes = [
        f"aim >= {AIM}: {'MISSED: ' + ', '.join(missed) if missed else 'all met'}",
        "loop: batches, masks, steps and sums of losses; without evaluation and the checkpoint at "
        "an epoch's end, of which a pre-training has four, and without one a minute",
        f"{rounds} rounds of {steps} steps each, after one that is not timed; who goes first "
        "changes from round to round; one thread; dropout off",
        "loss: mean of the last round; both see the same blocks, but draw masks of their own",
    ]
    return Section("Pre-training: the loop over a bare one", rows, notes)


RATIO = "loop / bare, tokens/s"


def measured(name: str, config: PretrainingConfig, bf16: bool, rounds: int, steps: int) -> Row:
    """Let both loops take a round of steps in turns."""
    tokens = (rounds + 1) * steps * config.batch_size * config.length
    config = replace(config, tokens=tokens, max_texts=4000)
    opened = open_pretraining(english_corpus(WorldConfig()), config)
    optimisation = replace(opened.config.optimisation, epochs=rounds + 1)
    opened = replace(
        opened, config=replace(opened.config, optimisation=optimisation), autocast=bf16
    )
    # A copy now: the generator looks at it when the loop may have trained already.
    bare = bare_loop(opened, config, steps, copy.deepcopy(opened.student.state_dict()))
    seconds: dict[str, list[float]] = {"loop": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        loop = train(opened, Checkpoints(Path(folder)), known_epochs=0)
        for number in range(rounds + 1):
            took = {}
            for way in ("bare", "loop") if number % 2 else ("loop", "bare"):
                if way == "loop":
                    result = next(loop)
                    took[way] = result.seconds
                else:
                    started = time.perf_counter()
                    bare_loss = next(bare)
                    took[way] = time.perf_counter() - started
            if number:  # the first round warms up
                for way, value in took.items():
                    seconds[way].append(value)
    tokens_a_round = steps * config.batch_size * config.length
    row: Row = {
        "model": f"{name} ({config.layers} x {config.width})",
        "batch": config.batch_size,
        "length": config.length,
        "precision": "bf16" if bf16 else "fp32",
    }
    row |= {f"{way} tokens/s": tokens_a_round / statistics.median(seconds[way]) for way in seconds}
    row |= {RATIO: ratio(seconds["bare"], seconds["loop"]), "aim": f">= {AIM}"}
    return row | {"loop loss": result.loss, "bare loss": bare_loss}


def bare_loop(
    opened: OpenRun, config: PretrainingConfig, steps: int, weights_at_start: dict[str, Tensor]
) -> Iterator[float]:
    """Pre-train a model from those weights; yield the mean loss after every so many steps."""
    assert isinstance(opened.student, MaskedStudent)
    device, tokenizer = opened.device, opened.tokenizer
    model = BertForMaskedLM(opened.student.model.config).to(device)
    model.load_state_dict({k.removeprefix("model."): v for k, v in weights_at_start.items()})
    model.eval()  # no dropout
    chosen: Tensor | None = None

    def keep_chosen(module: nn.Module, inputs: object, output: Any) -> None:
        output.last_hidden_state = output.last_hidden_state[chosen][None]

    model.base_model.register_forward_hook(keep_chosen)
    weights = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.lr,
        fused=True,
    )
    total = opened.config.optimisation.steps
    schedule = get_linear_schedule_with_warmup(optimizer, int(config.warmup_share * total), total)
    sequences = torch.from_numpy(opened.texts.student.tokens.padded(config.length, 0)).long()
    sampler = opened.sampler()
    rows = [torch.from_numpy(sampler.draw(step)) for step in range(total)]
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    generator, losses = torch.Generator(), []
    for step in range(total):
        generator.manual_seed(config.seed * 1_000_003 + step)
        ids = sequences[rows[step]]
        masked, mask = mask_tokens(
            ids, int(tokenizer.mask_token_id), special, len(tokenizer), config.mask_share, generator
        )
        chosen = mask.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=opened.autocast):
            logits = model(input_ids=masked.to(device)).logits[0]
        loss = nn.functional.cross_entropy(logits.float(), ids[mask].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) == steps:
            yield statistics.mean(losses)
            losses = []


def mask_tokens(
    ids: Tensor, mask_id: int, special: Tensor, vocabulary: int, share: float, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide tokens of a batch of full blocks as BERT does; return it, and which they are."""
    hidden = torch.isin(ids, special)
    noise = torch.rand(ids.shape, generator=draw).masked_fill(hidden, -1.0)
    count = round((ids.numel() - int(hidden.sum())) * share)
    chosen = torch.zeros(ids.numel(), dtype=torch.bool)
    chosen[noise.flatten().topk(count).indices] = True
    chosen = chosen.view(ids.shape)
    fate = torch.rand(ids.shape, generator=draw)
    masked = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    random_ids = torch.randint(vocabulary, ids.shape, generator=draw)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked), chosen
