"""The short names of models. Importing this costs nothing, so that `--help` is quick."""

HUB_MODELS = {
    "kobert": "kykim/bert-kor-base",
    "bert": "bert-base-uncased",
    "mbert": "bert-base-multilingual-uncased",
    "cbert": "emilyalsentzer/Bio_ClinicalBERT",
    "roberta": "roberta-base",
    "bio_roberta": "allenai/biomed_roberta_base",
    "bio_mbert": "StivenLancheros/mBERT-base-Biomedical-NER",
}
"""The reference's names and the hub ids behind them."""

TINY_MODELS = ("tiny-ko", "tiny-en-med", "tiny-en-tech")
"""Pre-trained on the spot from the synthetic world; see `dsgkd.training.on_the_fly`."""

CORPUS_PREFIX = "corpus:"
"""`corpus:PATH` names a small model that is pre-trained on the spot from the text under PATH."""

HEADS = {
    "cls": "",
    "mean": "dsgkd.models.heads:MeanHead",
    "max": "dsgkd.models.heads:MaxHead",
    "words": "dsgkd.models.heads:WordsHead",
    "projected": "dsgkd.models.heads:ProjectedHead",
    "paper": "dsgkd.models.heads:PaperHead",
}
"""The heads of students and where their classes are; "": the architecture's own head."""


def is_built_here(name: str) -> bool:
    """Whether a model is pre-trained on the spot rather than loaded."""
    return name in TINY_MODELS or name.startswith(CORPUS_PREFIX)
