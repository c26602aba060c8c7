"""The short names of flags: of fields that people type every day, and of common values."""

SHORT = {
    "DataConfig.path": "data",
    "DataConfig.text": "text",
    "DataConfig.label": "label",
    "DataConfig.split": "split",
    "DataConfig.group": "group",
    "DataConfig.id": "id",
    "DataConfig.subgroups": "subgroup",
    "TransferConfig.unlabelled": "unlabelled",
    "TransferConfig.unlabelled_text": "unlabelled-text",
    "TransferConfig.glossary": "glossary",
    "TransferConfig.mix": "mix",
    "StudentConfig.model": "student",
    "StudentConfig.head": "head",
    "DistillationConfig.teacher": "teacher",
    "DistillationConfig.alpha": "alpha",
    "DistillationConfig.beta": "beta",
    "DistillationConfig.terms": "term",
    "DistillationConfig.mapping": "mapping",
    "DistillationConfig.max_transfer_words": "cs-max-len",
    "DistillationConfig.cs_max_len": "cs-max-len",
    "DistillationConfig.teacher_store": "teacher-store",
    "OptimisationConfig.epochs": "epochs",
    "OptimisationConfig.batch_size": "batch-size",
    "HeadroomCommand.teachers": "teacher",
    "StoreConfig.folder": "store",
    "StoreConfig.node_folder": "store-node-folder",
    "StoreConfig.budget_gb": "store-budget-gb",
    "StudyConfig.teachers": "teacher",
    "SearchConfig.trials": "trials",
    "SearchConfig.sampler": "sampler",
    "SearchConfig.equal": "equal",
    "SearchConfig.objectives": "objective",
    "SearchConfig.constraints": "constraint",
    "SearchConfig.grid_points": "grid-points",
    "SearchSpace.alpha": "alpha",
    "SearchSpace.beta": "beta",
    "SearchSpace.cs_max_len": "cs-max-len",
    "SearchSpace.mappings": "mapping",
    "SearchSpace.function": "space",
    "SearchSpace.teacher_layers": "teacher-layers",
    "PruningConfig.scheduler": "scheduler",
    "PruningConfig.grace_epochs": "grace-epochs",
    "ConfirmationConfig.top": "confirm-top",
    "ConfirmationConfig.seeds": "confirm-seeds",
    "ConfirmationConfig.controls": "controls",
    "ConfirmationConfig.tune_controls": "tune-controls",
    "BudgetConfig.max_hours": "max-hours",
    "BudgetConfig.max_gpu_hours": "max-gpu-hours",
    "BudgetConfig.max_cost": "max-cost",
    "BudgetConfig.price_per_gpu_hour": "price-per-gpu-hour",
    "ClusterConfig.max_concurrent": "max-concurrent",
    "ClusterConfig.workers_per_trial": "workers-per-trial",
    "ClusterConfig.gpus_per_worker": "gpus-per-worker",
}
"""Class and field -> the flag that people type for it."""
ALONE = {"--test": "once"}
"""Flags with a value that may be left out, and what they mean then."""
EXPANDED = {
    "--use-gpu": ("--gpus-per-worker", "1"),
    "--student-corpus": ("--student", "corpus:{}"),
    "--teacher-corpus": ("--teacher", "corpus:{}"),
}
"""Flags that stand for a value of another; {} is what they are given."""
JOINTS = {"first": ";", "teacher": "+"}
"""Flags that are no lists and may be repeated, and what joins what they are given."""
MAY_BE_EMPTY = frozenset({"split", "group", "id"})
"""Columns that are found by name unless they are given, even as nothing."""
