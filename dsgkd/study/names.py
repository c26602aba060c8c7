"""The names of models and data as a ledger shows them: without where they lie."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

from dsgkd.configuration import structure
from dsgkd.errors import InputError
from dsgkd.ledger import without_paths
from dsgkd.study.config import StudyConfig, as_json
from dsgkd.study.search.arms import public_name
from dsgkd.training.config import LinkConfig, RunConfig

AnyRun = TypeVar("AnyRun", RunConfig, LinkConfig)


class PublicNames:
    """Takes the names of a study's models to those of its ledger, and back.

    Raises:
        InputError: two models would have the same name.
    """

    def __init__(self, config: StudyConfig) -> None:
        arms = [arm.teacher for arm in config.arms.values() if arm.teacher]
        given = dict.fromkeys((*config.models, *config.teachers, *arms))
        self._names = {name: public_name(name) for name in given}
        self._given: dict[str, str] = {}
        for name, public in self._names.items():
            if self._given.setdefault(public, name) != name:
                raise InputError(
                    f"model {public}", "two models are called so", "rename the folder of one"
                )
        transfers = [config.run.transfer, *(link.transfer for link in config.run.chain)]
        files = [config.run.data.path]
        files += [name for one in transfers for name in (*one.unlabelled, one.glossary)]
        for name in filter(None, files):
            if Path(name).exists():
                self._names[name] = PurePath(name).name

    def public(self, tree: Any) -> Any:
        """Return JSON values with the names that may be in a ledger."""
        if isinstance(tree, str):
            return self._names.get(tree) or without_paths(tree)
        if isinstance(tree, dict):
            return {key: self.public(value) for key, value in tree.items()}
        return [self.public(value) for value in tree] if isinstance(tree, list | tuple) else tree

    def configuration(self, config: StudyConfig) -> dict[str, Any]:
        """Return a study's configuration as its ledger has it."""
        found: dict[str, Any] = self.public(as_json(config))
        return found

    def given(self, public: str) -> str:
        """Return what the user calls a model."""
        return self._given.get(public, public)


def restored(row: Mapping[str, Any], config: StudyConfig) -> RunConfig:
    """Return the run of a trial in the ledger, with its files where they lie now.

    Args:
        row: of the table `trials`, its JSON parsed.
        config: the study's, with the paths of now.

    Raises:
        InputError: the configuration cannot be read.
    """
    written, ours = structure(RunConfig, row["configuration"]), config.run
    names = PublicNames(config)

    def found(run: AnyRun, now: AnyRun) -> AnyRun:
        return replace(
            run,
            distillation=replace(run.distillation, teacher=names.given(run.distillation.teacher)),
            transfer=replace(
                run.transfer,
                unlabelled=now.transfer.unlabelled,
                glossary=now.transfer.glossary,
            ),
        )

    here = {link.name: link for link in ours.chain}
    return replace(
        found(written, ours),
        data=ours.data,
        world=ours.world,
        student=replace(written.student, model=ours.student.model),
        links=tuple(found(link, here.get(link.name, link)) for link in written.links),
    )
