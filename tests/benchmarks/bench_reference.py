"""How much faster a training step is than the way the DSG-KD reference takes it.

Each action is one whole optimisation step from texts (the reference) or from texts that were
tokenised once (the library): batch, teacher, student, losses, backward, AdamW. Before anything is
timed, the reference rendition and the paper's criteria must give the same losses.
"""

import csv
import statistics
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from bench_preparation import describe, invented_texts, tokenizers
from harness import Row, Section, Spread
from reference import ReferenceTraining, Student
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from workload import Trainer, spent

from dsgkd.data.config import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.training.config import RunConfig, paper_preset
from dsgkd.training.opening import open_run

LAYERS, WIDTH, HEADS = 4, 256, 4
STANDARD = RunConfig(distillation=DistillationConfig("teacher"))
PAPER = paper_preset(STANDARD)
SAME = 1e-4
WAYS = ("paper", "paper stored", "standard", "standard stored")


@dataclass(frozen=True)
class Plan:
    """One size of batch, and how often it is timed."""

    batch: int
    length: int
    rounds: int
    before: int
    """Steps of each of ours in a round before the reference's one."""
    after: int
    aim: int | None = None


FULL = [Plan(8, 384, 3, 1, 1, aim=20), Plan(32, 384, 1, 3, 2, aim=60)]
QUICK = [Plan(4, 128, 2, 1, 1)]


def run(quick: bool) -> Section:
    """Time the reference's step and ours on the same batches."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    notes = [
        f"both models BERT {LAYERS} x {WIDTH}, {HEADS} heads, random weights, no dropout, fp32, "
        "one thread",
        "paper: the library's paper preset, teacher live, equal losses: texts are padded to the "
        "longest of their batch, because padding changes no loss",
        "standard: the library's defaults (beta 0, so no attention term; not the same losses), "
        "padded to the batch, teacher live: what a user gets",
        "stored: the teacher's word states are read from its store on disk, which was populated "
        "before",
        "ours read texts that were tokenised once, and that is not in their time (see the section "
        "on preparing texts); making tensors of them is",
        "each ratio is the reference's step over the median of ours around it in the same round",
        "backward of each slice of the reference fills and adds a tensor as large as a layer's "
        "attention: at batch 8 (19 MB) glibc reuses its memory, at batch 32 (75 MB) it maps fresh "
        "pages every time, so MALLOC_MMAP_THRESHOLD_ moves the ratios severalfold",
    ]
    pair = tokenizers()
    with tempfile.TemporaryDirectory() as folder:
        for plan in QUICK if quick else FULL:
            row, said = measured(plan, pair, Path(folder))
            rows.append(row)
            notes += said
    return Section("A training step: the reference's algorithm against the library", rows, notes)


def measured(
    plan: Plan, pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast], folder: Path
) -> tuple[Row, list[str]]:
    """Time one plan: each round is one batch, the same for all."""
    bench = Bench(plan, pair, folder)
    difference = bench.check(0)
    for way in WAYS:
        bench.ours[way].step_on(0)
    seconds: dict[str, list[float]] = {name: [] for name in ("reference", *WAYS)}
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    stages = []
    for number in range(plan.rounds):
        ours: dict[str, list[float]] = {way: [] for way in WAYS}
        around(bench, number, plan.before, ours)
        reference = spent(partial(bench.reference_step, number))
        around(bench, number, plan.after, ours)
        stages.append(bench.reference.seconds)
        seconds["reference"].append(reference)
        for way in WAYS:
            seconds[way] += ours[way]
            ratios[way].append(reference / statistics.median(ours[way]))
    spreads = {way: Spread.of(ratios[way]) for way in WAYS}
    row: Row = {"batch": plan.batch, "padded to": plan.length}
    row |= {f"{name} s": statistics.median(values) for name, values in seconds.items()}
    row["aim"] = f">= {plan.aim}" if plan.aim else None
    row |= {f"reference / {way}": spreads[way] for way in WAYS}
    row["loss difference"] = difference
    where = ", ".join(
        f"{name} {statistics.median(stage[name] for stage in stages):.2f} s" for name in stages[0]
    )
    texts = bench.ours["paper"].run.texts
    said = [
        f"batch {plan.batch}: {plan.rounds} reference steps, {len(seconds['paper'])} of each of "
        f"ours; {describe(texts)}",
        f"batch {plan.batch}: the reference's time: {where}",
    ]
    if plan.aim:
        verdict = [
            f"{way} {spreads[way].median:.1f}x "
            f"({'met' if spreads[way].median >= plan.aim else 'MISSED'})"
            for way in WAYS
        ]
        said.append(f"batch {plan.batch}: aim >= {plan.aim}x: {', '.join(verdict)}")
    return row, said


def around(bench: "Bench", number: int, times: int, seconds: dict[str, list[float]]) -> None:
    """Take our steps in turns."""
    for _ in range(times):
        for way in WAYS:
            seconds[way].append(spent(partial(bench.ours[way].step_on, number)))


class Bench:
    """The reference and ours, on copies of the same weights and on the same batches."""

    def __init__(
        self,
        plan: Plan,
        pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
        folder: Path,
    ) -> None:
        self.texts = invented_texts(plan.batch * (plan.rounds + 1))
        save_models(pair, folder)
        notes = write_notes(folder / f"notes-{plan.batch}.csv", self.texts)

        def trainer(base: RunConfig, store: str) -> Trainer:
            config = replace(
                base,
                data=DataConfig(path=str(notes)),
                student=replace(base.student, model=str(folder / "student"), dropout=0.0),
                distillation=replace(
                    base.distillation, teacher=str(folder / "teacher"), teacher_store=store
                ),
                optimisation=replace(base.optimisation, batch_size=plan.batch, precision="fp32"),
                splits=("train", "validation"),
                max_length=plan.length,
                device="cpu",
            )
            return Trainer(open_run(config, folder / "cache"))

        self.ours = {
            "paper": trainer(PAPER, "live"),
            "paper stored": trainer(PAPER, "stored"),
            "standard": trainer(STANDARD, "live"),
            "standard stored": trainer(STANDARD, "stored"),
        }
        self.reference = rendition(pair, self.ours["paper"], plan.length, folder)

    def same_texts(self, number: int) -> tuple[list[str], Tensor]:
        """Return the texts and labels of a batch, of which the reference starts."""
        batch = next(self.ours["paper"].batches(number))
        return [self.texts[row] for row in batch.rows.tolist()], batch.labels

    def reference_step(self, number: int) -> None:
        """Take a step as the reference does."""
        self.reference.step(*self.same_texts(number))

    def check(self, number: int) -> float:
        """Make sure that both compute the same; return the largest difference of a term."""
        paper = self.ours["paper"]
        with torch.no_grad():
            batch, states = next(paper.fed(paper.batches(number)))
            words = [pair.mask.sum() for pair in batch.pairs]
            ours = paper.run.distiller(batch, states, len(batch), words).weighted.tolist()
            theirs = [float(loss) for loss in self.reference.losses(*self.same_texts(number))]
        pairs = [*zip(ours, theirs, strict=True), (sum(ours), sum(theirs))]
        difference = max(abs(one / other - 1) for one, other in pairs)
        if not difference <= SAME:
            raise AssertionError(f"losses differ by {difference:.1e}: {ours}, {theirs}")
        return difference


def write_notes(path: Path, texts: list[str]) -> Path:
    """Write notes to train on, labelled by turns, and a few for validation."""
    rows = [(text, at % 2, "train") for at, text in enumerate(texts)]
    rows += [(text, at % 2, "validation") for at, text in enumerate(invented_texts(8, seed=3))]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "split"), *rows])
    return path


def save_models(
    pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
    folder: Path,
    dropout: float = 0.0,
) -> None:
    """Write a teacher and a student with random weights."""
    for seed, (name, tokenizer) in enumerate(zip(("teacher", "student"), pair)):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=384,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        BertModel(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def rendition(
    pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
    paper: Trainer,
    length: int,
    folder: Path,
) -> ReferenceTraining:
    """Return the reference on the weights of the library's student."""
    teacher, encoder = (
        BertModel.from_pretrained(folder / name, attn_implementation="eager")
        for name in ("teacher", "student")
    )
    student = Student(encoder, 2).train()
    for ours, theirs in zip(paper.run.student.parameters(), student.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    wanted = PAPER.distillation
    return ReferenceTraining(
        teacher.requires_grad_(False).eval(),
        student,
        *pair,
        optimizer=torch.optim.AdamW(student.parameters(), lr=1e-4, eps=1e-8),
        alpha=wanted.alpha,
        beta=wanted.beta,
        max_length=length,
        most_words=wanted.max_transfer_words,
    )
