"""What a step of distillation costs over a step of plain fine-tuning on the same texts."""

import statistics

import torch
from harness import Row, Section, ratio
from workload import BASE, KINDS, MINI, Kind, Setting, arms_of, step_seconds

HIDDEN_AIM = 1.05


def run(quick: bool) -> Section:
    """Time all arms on the same batches, one thread."""
    torch.set_num_threads(1)
    rows = []
    for setting, rounds, aim in plan(quick):
        with arms_of(setting, KINDS, setting.batch * (rounds + 1)) as arms:
            seconds = step_seconds(arms, rounds)
        rows.append(row(setting, seconds, aim))
    return Section("A step of distillation over a step of plain fine-tuning", rows, _notes(rows))


def plan(quick: bool) -> list[tuple[Setting, int, float]]:
    """Return what is measured, how often, and what the stored arm is to stay below."""
    if quick:
        return [(Setting(MINI, 8, bf16), 5, 1.20 if bf16 else 1.10) for bf16 in (False, True)]
    return [
        (Setting(MINI, batch, bf16), rounds, 1.20 if bf16 else 1.10)
        for bf16 in (False, True)
        for batch, rounds in ((8, 15), (16, 11), (32, 9))
    ] + [(Setting(BASE, 4, bf16), 5, 1.05) for bf16 in (False, True)]


def row(setting: Setting, seconds: dict[Kind, list[float]], aim: float) -> Row:
    """Return the ratios of one setting."""
    found: Row = {
        "model": str(setting.shape),
        "batch": setting.batch,
        "precision": setting.precision,
        "plain ms": statistics.median(seconds["plain"]) * 1e3,
    }
    found |= {f"{kind} / plain": ratio(seconds[kind], seconds["plain"]) for kind in KINDS[1:]}
    return found | {"aim hidden only stored": HIDDEN_AIM, "aim stored": aim}


def _notes(rows: list[Row]) -> list[str]:
    missed = [
        f"{row['model']} batch {row['batch']} {row['precision']}: {kind} "
        f"{row[f'{kind} / plain'].median:.3f}, aim <= {row[aim]:.2f}"
        for row in rows
        for kind, aim in (
            ("hidden only stored", "aim hidden only stored"),
            ("stored", "aim stored"),
        )
        if row[f"{kind} / plain"].median > row[aim]
    ]
    return [
        f"aims: {'all met' if not missed else 'MISSED: ' + '; '.join(missed)}",
        "hidden only: word states of all layers (beta 0); stored and live: word states and word "
        "attention of all layers (mapping uniform, alpha 1, beta 1); teacher as large as student",
        "20-30 words a text, of 1-3 tokens; 80-96 tokens a text; vocabulary 8,000; random weights",
        "every arm pays for its batch from tokenised texts, and a stored arm for the look-up in "
        "its store on disk, with the checksum of each text's states, which a run computes in its "
        "first epoch only; filling the store is not in it",
        "all arms see the same texts in a round, padded alike; a step is the training loop's; one "
        "thread; who goes first changes from round to round",
    ]
