"""How much faster is a training step than the way the DSG-KD reference takes it?

Each action is one whole optimisation step from texts (the reference) or from texts that were
tokenised once (the library): batch, teacher, student, losses, backward, AdamW. Before anything is
timed, the reference rendition and the paper form must give the same losses.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_preparation import as_notes, describe, invented_texts, tokenizers
from harness import Row, Section, Spread
from reference import ReferenceTraining, Student
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dsgkd.alignment.batches import Batch, training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.alignment.words import WordRule
from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.teachers.teacher import LiveTeacher
from dsgkd.models.attention import attention_for
from dsgkd.models.hub import load_model
from dsgkd.models.student import StudentConfig, new_student
from dsgkd.models.taps import WordStates
from dsgkd.training.run import RunConfig, paper_preset

LAYERS, WIDTH, HEADS = 4, 256, 4
PAPER = paper_preset(RunConfig(distillation=DistillationConfig("teacher")))
SHIPPED = RunConfig(distillation=DistillationConfig("teacher"))
SAME = 1e-4
FORMS = ("paper", "paper stored", "standard", "standard stored")


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
Step = Callable[[int], None]


def run(quick: bool) -> Section:
    """Time the reference's step and ours on the same batches."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    notes = [
        f"both models BERT {LAYERS} x {WIDTH}, {HEADS} heads, random weights, no dropout, fp32, "
        "one thread",
        "paper: the library's paper form, teacher live, equal losses: texts are padded to the "
        "longest of their batch, because padding changes no loss",
        "standard: the library's defaults (beta 0, so no attention term; not the same losses), "
        "padded to the batch, teacher live: what a user gets",
        "stored: the teacher's word states were computed before timing and are kept in a dict, "
        "which stands in for a stored teacher",
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
    for form in FORMS:
        bench.steps[form](0)
    seconds: dict[str, list[float]] = {name: [] for name in ("reference", *FORMS)}
    ratios: dict[str, list[float]] = {form: [] for form in FORMS}
    stages = []
    for number in range(plan.rounds):
        ours: dict[str, list[float]] = {form: [] for form in FORMS}
        around(bench, number, plan.before, ours)
        reference = spent(bench.reference_step, number)
        around(bench, number, plan.after, ours)
        stages.append(bench.reference.seconds)
        seconds["reference"].append(reference)
        for form in FORMS:
            seconds[form] += ours[form]
            ratios[form].append(reference / statistics.median(ours[form]))
    spreads = {form: Spread.of(ratios[form]) for form in FORMS}
    row: Row = {"batch": plan.batch, "padded to": plan.length}
    row |= {f"{name} s": statistics.median(values) for name, values in seconds.items()}
    row["aim"] = f">= {plan.aim}" if plan.aim else None
    row |= {f"reference / {form}": spreads[form] for form in FORMS}
    row["loss difference"] = difference
    where = ", ".join(
        f"{name} {statistics.median(stage[name] for stage in stages):.2f} s" for name in stages[0]
    )
    said = [
        f"batch {plan.batch}: {plan.rounds} reference steps, {len(seconds['paper'])} of each of "
        f"ours; {describe(bench.notes)}",
        f"batch {plan.batch}: the reference's time: {where}",
    ]
    if plan.aim:
        verdict = [
            f"{form} {spreads[form].median:.1f}x "
            f"({'met' if spreads[form].median >= plan.aim else 'MISSED'})"
            for form in FORMS
        ]
        said.append(f"batch {plan.batch}: aim >= {plan.aim}x: {', '.join(verdict)}")
    return row, said


def around(bench: "Bench", number: int, times: int, seconds: dict[str, list[float]]) -> None:
    """Take our steps in turns."""
    for _ in range(times):
        for form in FORMS:
            seconds[form].append(spent(bench.steps[form], number))


def spent(step: Step, number: int) -> float:
    """Time one step."""
    started = time.perf_counter()
    step(number)
    return time.perf_counter() - started


class Bench:
    """The reference and ours, on copies of the same weights and on the same batches."""

    def __init__(
        self,
        plan: Plan,
        pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
        folder: Path,
    ) -> None:
        self.plan = plan
        self.texts = invented_texts(plan.batch * (plan.rounds + 1))
        save_models(pair, folder)
        teacher_tokenizer, student_tokenizer = pair

        def encoded(rule: WordRule) -> EncodedNotes:
            notes = as_notes(self.texts)
            return EncodedNotes.build(
                notes, student_tokenizer, teacher_tokenizer, plan.length, rule, folder
            )

        self.notes = encoded(PAPER.words)
        self.paper = distiller(PAPER, folder, plan.length)
        self.paper_teacher = live_teacher(self.paper, folder)
        self.reference = rendition(pair, self.paper, plan.length, folder)

        shipped, shipped_notes = distiller(SHIPPED, folder, plan.length), encoded(SHIPPED.words)
        teacher = live_teacher(shipped, folder)
        shipped.calibrate((self.batch(n, shipped_notes) for n in range(plan.rounds + 1)), teacher)
        numbers = range(plan.rounds + 1)
        store = stored_states(teacher, [self.batch(n, shipped_notes) for n in numbers])
        paper_store = stored_states(
            self.paper_teacher, [self.batch(n, self.notes, same_length=True) for n in numbers]
        )

        paper_optimizer, optimizer = adamw(self.paper), adamw(shipped)

        def paper(number: int) -> None:
            batch = self.batch(number, self.notes, same_length=True)
            take_step(self.paper, batch, self.paper_teacher.word_states(batch), paper_optimizer)

        def paper_stored(number: int) -> None:
            batch = self.batch(number, self.notes, same_length=True)
            take_step(self.paper, batch, paper_store[named(batch)], paper_optimizer)

        def standard(number: int) -> None:
            batch = self.batch(number, shipped_notes)
            take_step(shipped, batch, teacher.word_states(batch), optimizer)

        def standard_stored(number: int) -> None:
            batch = self.batch(number, shipped_notes)
            take_step(shipped, batch, store[named(batch)], optimizer)

        steps: tuple[Step, ...] = (paper, paper_stored, standard, standard_stored)
        self.steps = dict(zip(FORMS, steps, strict=True))

    def batch(self, number: int, notes: EncodedNotes, same_length: bool = False) -> Batch:
        """Assemble a batch of the first epoch."""
        most = PAPER.distillation.cs_max_len
        return next(
            training_batches(
                notes, self.plan.batch, most, 0, 0, start=number, same_length=same_length
            )
        )

    def same_texts(self, number: int) -> tuple[list[str], Tensor]:
        """Return the texts and labels of a batch, of which the reference starts."""
        batch = self.batch(number, self.notes)
        return [self.texts[row] for row in batch.rows.tolist()], batch.labels

    def reference_step(self, number: int) -> None:
        """Take a step as the reference does."""
        self.reference.step(*self.same_texts(number))

    def check(self, number: int) -> float:
        """Make sure that both compute the same; return the largest difference of a term."""
        batch = self.batch(number, self.notes, same_length=True)
        with torch.no_grad():
            taught = self.paper_teacher.word_states(batch)
            ours = self.paper(batch, taught, len(batch.labels), batch.word_mask.sum())
            theirs = self.reference.losses(*self.same_texts(number))
        pairs = [*zip(ours, theirs), (sum(ours), sum(theirs))]
        difference = max(abs(float(one) / float(other) - 1) for one, other in pairs)
        if not difference <= SAME:
            raise AssertionError(f"losses differ by {difference:.1e}: {ours}, {theirs}")
        return difference


def named(batch: Batch) -> tuple[int, ...]:
    """Name a batch by what the teacher reads of it."""
    return tuple(batch.keys.tolist())


def stored_states(teacher: LiveTeacher, batches: list[Batch]) -> dict[tuple[int, ...], WordStates]:
    """Ask the teacher about some batches once."""
    return {named(batch): teacher.word_states(batch) for batch in batches}


def save_models(
    pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast], folder: Path
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
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        BertModel(config).save_pretrained(folder / name)


def distiller(config: RunConfig, folder: Path, max_length: int) -> Distiller:
    """Return the library's student and its losses."""
    torch.manual_seed(2)
    head = StudentConfig(head=config.student.head, dropout=0.0)
    student = new_student(head, str(folder / "student"), 2, attention_for("cpu"))
    pairs = LayerMapping.parse(config.distillation.mapping).resolve(LAYERS, LAYERS)
    return Distiller(student, config.distillation, pairs, WIDTH, WIDTH, max_length).train()


def live_teacher(distiller: Distiller, folder: Path) -> LiveTeacher:
    """Return the library's teacher."""
    model = load_model(str(folder / "teacher"), attention_for("cpu"))
    return LiveTeacher(model.requires_grad_(False).eval(), distiller.teacher_request)


def rendition(
    pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
    paper: Distiller,
    length: int,
    folder: Path,
) -> ReferenceTraining:
    """Return the reference on the weights of the library's paper form."""
    teacher, encoder = (
        BertModel.from_pretrained(folder / name, attn_implementation="eager")
        for name in ("teacher", "student")
    )
    student = Student(encoder, 2).train()
    student.load_state_dict(paper.student.state_dict())
    wanted = PAPER.distillation
    return ReferenceTraining(
        teacher.requires_grad_(False).eval(),
        student,
        *pair,
        optimizer=torch.optim.AdamW(student.parameters(), lr=1e-4, eps=1e-8),
        alpha=wanted.alpha,
        beta=wanted.beta,
        max_length=length,
        most_words=wanted.cs_max_len,
    )


def adamw(distiller: Distiller) -> torch.optim.AdamW:
    """Return the optimizer of the library's loop."""
    return torch.optim.AdamW(distiller.parameters(), lr=1e-4, eps=1e-8, fused=True)


def take_step(
    distiller: Distiller, batch: Batch, taught: WordStates, optimizer: torch.optim.Optimizer
) -> None:
    """Take a step as the library's loop does, in one process."""
    losses = distiller(batch, taught, len(batch.labels), batch.word_mask.sum())
    optimizer.zero_grad(set_to_none=True)
    sum(losses).backward()
    nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)
    optimizer.step()
