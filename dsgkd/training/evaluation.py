"""What does a student predict, and how good is it?"""

import numpy as np
import torch
from numpy.typing import NDArray

from dsgkd.alignment.batches import evaluation_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.models.student import probabilities
from dsgkd.tasks.measures import f1_threshold
from dsgkd.training.run import OpenRun
from dsgkd.training.workers import Workers


def predict(
    run: OpenRun, notes: EncodedNotes, workers: Workers | None = None
) -> NDArray[np.float32]:
    """Return class probabilities of notes, [notes, classes], in their order, on every worker.

    No teacher is asked and nothing is tapped.
    """
    workers = workers or Workers()
    student = run.distiller.student
    was_training = student.training
    student.eval()
    rows, shares = [], []
    # On a CPU larger batches only leave its caches (`make bench ONLY=choices`).
    best = 256 if run.device.type == "cuda" else 32
    size = run.config.optimisation.evaluation_batch_size or best
    for batch in evaluation_batches(notes, size, workers.rank, workers.size):
        side = batch.to(run.device).student
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
            shares.append(probabilities(student, side.input_ids, side.attention_mask))
        rows.append(batch.rows)
    student.train(was_training)
    result = np.zeros((len(notes), len(run.label_names)), np.float32)
    own = (torch.cat(rows).numpy(), torch.cat(shares).cpu().numpy()) if rows else None
    for part in workers.gather(own):
        if part is not None:
            result[part[0]] = part[1]
    return result


def validation_threshold(
    run: OpenRun, labels: NDArray[np.int64], probability: NDArray[np.floating]
) -> float:
    """Return the decision threshold of a binary task by the run's rule; 0.5 for more classes."""
    if len(run.label_names) != 2:
        return 0.5
    if run.config.selection.threshold == "prevalence":
        return float(run.notes.split("train").labels.mean())
    return f1_threshold(labels, probability[:, 1])
