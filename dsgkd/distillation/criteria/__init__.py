"""Distillation criteria, a file each, and the names by which a run chooses them."""

from dsgkd.distillation.criteria.contrastive import ContrastiveHidden
from dsgkd.distillation.criteria.criterion import Criterion
from dsgkd.distillation.criteria.orthonormal import FixedHidden, OrthonormalHidden
from dsgkd.distillation.criteria.paper import PaperAttention, PaperHidden
from dsgkd.distillation.criteria.projected import ProjectedHidden
from dsgkd.distillation.criteria.relational import RelationalHidden
from dsgkd.distillation.criteria.reverse import ReverseHidden
from dsgkd.distillation.criteria.word_attention import WordAttention

CRITERIA: dict[str, type[Criterion]] = {
    "projected": ProjectedHidden,
    "orthonormal": OrthonormalHidden,
    "fixed": FixedHidden,
    "reverse": ReverseHidden,
    "contrastive": ContrastiveHidden,
    "relational": RelationalHidden,
    "paper_hidden": PaperHidden,
    "word_attention": WordAttention,
    "paper_attention": PaperAttention,
}

__all__ = ["CRITERIA", "Criterion"]
