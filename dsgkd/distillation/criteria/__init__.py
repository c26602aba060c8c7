"""Distillation criteria, a file each, and the names by which a run chooses them."""

from dsgkd.distillation.criteria.criterion import Criterion
from dsgkd.distillation.criteria.paper import PaperAttention, PaperHidden
from dsgkd.distillation.criteria.projected import ProjectedHidden
from dsgkd.distillation.criteria.word_attention import WordAttention

CRITERIA: dict[str, type[Criterion]] = {
    "projected": ProjectedHidden,
    "paper_hidden": PaperHidden,
    "word_attention": WordAttention,
    "paper_attention": PaperAttention,
}

__all__ = ["CRITERIA", "Criterion"]
