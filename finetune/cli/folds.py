"""`simclr-folds`: the same training over folds or seeds, with mean, spread and paired tests."""

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.storage import claimed
from finetune.sections import FoldsConfig

if TYPE_CHECKING:
    from finetune.config import FinetuneConfig
    from finetune.folds import OneRun
    from finetune.transfer_config import TransferConfig

NAME = "simclr-folds"
DESCRIPTION = """Trains the same classifier over k folds, or from several seeds, and says mean and
spread of every metric. All flags of the training command follow after two dashes:

simclr-folds --command=finetune --folds_dir=FOLDS --output=DIR -- --encoder=RUN --head_only

The folds are those of simclr-split --folds=K; --folds=K with --image_dir makes them on the spot,
and --seeds=0,1,2 with --manifest trains on one split again and again. The same command goes on
where it was stopped; runs that are complete are kept.

--compare=A,B compares two runs, or two such folders run by run: the corrected resampled t-test over
folds, and the paired bootstrap where test images are the same."""

log = logging.getLogger("finetune.folds")

_OWN = ("manifest", "image_dir", "output", "overwrite")


def run(config: FoldsConfig, given: Collection[str], arguments: Sequence[str]) -> int:
    """Trains and reports, or compares.

    Args:
        config: All settings.
        given: Names of those that were given.
        arguments: Of the training command.
    """
    f = config.folds
    if config.comparison.compare:
        return _compare(config, given)
    if not config.training.output:
        raise UserError("is missing: say where the runs are to be kept", setting="output")
    ways = [bool(f.folds_dir), f.folds is not None, bool(f.seeds)]
    if sum(ways) != 1:
        raise UserError("give one of --folds_dir=FOLDER, --folds=K and --seeds=0,1,2")
    refused = _refused(arguments, (*_OWN, *(["seed"] if f.seeds else [])))
    if refused:
        raise UserError(f"after --: {refused} is set by simclr-folds itself; leave it out")
    training, output = _Training(config.training.command, arguments), Path(config.training.output)
    busy = f"--output={output}: another process is at work there; wait for it to end"
    command = [NAME, *config.flags(given), "--", *arguments]
    with claimed(output, busy):
        return _train(config, arguments, training, output, command)


def _train(
    config: FoldsConfig,
    arguments: Sequence[str],
    training: "_Training",
    output: Path,
    command: Sequence[str],
) -> int:
    from finetune.folds import (
        PAGE,
        TABLE,
        FoldsPlan,
        note_warnings,
        read_folds,
        train_folds,
        write_table,
    )

    plan = FoldsPlan(config.training.command, tuple(arguments), _runs(config, output))
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    code = train_folds(plan, output, training)
    if code:
        return code
    result = read_folds(output)
    write_table(result, output / TABLE)
    note_warnings(result, output)
    from finetune.folds import alarms, folds_verdict, other_warnings
    from finetune.folds_page import fold_table, headline, write_folds_page

    write_folds_page(result, plan, command, output / PAGE)
    print(fold_table(result, _SHOWN).text())
    print(f"\n{headline(result)}")
    for text in (*alarms(result), *other_warnings(result)):
        log.warning("%s", text)
    if verdict := folds_verdict(result):
        print(verdict.sentence())
    log.info("wrote %s", output / PAGE)
    return 0


_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")


class _Training:
    """Trains one run by the command's library function.

    Args:
        command: `finetune` or `transfer`.
        arguments: Its flags.

    Raises:
        UserError: A flag that it does not have, or a bad value.
    """

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        from finetune.cli import finetune, transfer

        self._arguments = tuple(arguments)
        self._command: Command[Any] = finetune.COMMAND
        self._train: Callable[..., int] = _finetune
        if command == "transfer":
            self._command, self._train = transfer.COMMAND, _transfer
        self._parsed([])  # says at once what is wrong

    def _parsed(self, more: Sequence[str]) -> tuple[Any, Collection[str]]:
        return self._command.parsed([*self._arguments, *more])

    def __call__(self, one: "OneRun", folder: Path) -> int:
        """Trains a run; the exit code."""
        more = [f"--manifest={one.manifest}", f"--output={folder}"]
        more += [] if one.seed is None else [f"--seed={one.seed}"]
        return self._train(*self._parsed(more), (self._command.name, *self._arguments, *more))


def _finetune(config: "FinetuneConfig", given: Collection[str], command: Sequence[str]) -> int:
    from finetune.finetune import finetune

    return finetune(config, given, command)


def _transfer(config: "TransferConfig", _given: Collection[str], command: Sequence[str]) -> int:
    from finetune.transfer import train_transfer

    return train_transfer(config, command)


def _runs(config: FoldsConfig, output: Path) -> "tuple[OneRun, ...]":
    from finetune.folds import OneRun, manifests_of

    f, images = config.folds, config.images
    if f.folds_dir:
        return manifests_of(f.folds_dir)
    if f.folds is not None:
        return manifests_of(_make_folds(config, f.folds, output / "folds"))
    if not images.manifest or images.image_dir:
        raise UserError("--seeds needs --manifest: one split for all of them (simclr-split)")
    if not Path(images.manifest).is_file():
        raise UserError("no such file", setting="manifest", value=images.manifest)
    if not all(seed.strip().isdigit() for seed in f.seeds) or len(set(f.seeds)) < len(f.seeds):
        raise UserError("must be different whole numbers from 0", setting="seeds", value=f.seeds)
    manifest = str(Path(images.manifest).resolve())
    return tuple(OneRun(f"seed_{int(seed)}", manifest, int(seed)) for seed in f.seeds)


def _make_folds(config: FoldsConfig, number: int, folder: Path) -> Path:
    """Makes the folds, unless an earlier start of the same command has."""
    from data_prep.manifest.groups import keep_together
    from data_prep.manifest.open_images import open_images
    from data_prep.manifest.splits import FoldPlan, fold_names, make_folds, save_folds

    if folder.is_dir():
        return folder
    f = config.folds
    rest = {"train": 1 - f.validation, "validation": f.validation}
    plan = FoldPlan(number, "test", rest={name: share for name, share in rest.items() if share})
    images, kept = keep_together(
        open_images(config.images), group_by=f.group_by, source=config.images.manifest,
        hashes=True, near_duplicates="mirrored", progress=progress_lines,
    )  # fmt: skip
    print(kept)
    folds = make_folds(images, plan, f.fold_seed)
    save_folds(dict(zip(fold_names(len(folds)), folds, strict=True)), folder)
    return folder


def _compare(config: FoldsConfig, given: Collection[str]) -> int:
    from data_prep.outputs import requested_outputs
    from finetune.folds import read_folds
    from finetune.folds_page import compare, compare_table, write_compare_page

    folders = config.comparison.compare
    if len(folders) != 2:
        raise UserError("give two folders, A,B", setting="compare", value=folders)
    outputs = requested_outputs(config, given, NAME) if config.training.output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    found = compare(*(read_folds(folder) for folder in folders))
    names = _names(folders)
    print(compare_table(found, names).text())
    print("\n" + "\n".join(found.remarks))
    for name, own in zip(names, found.cautions, strict=True):
        for text in own:
            print(f"{name}: {text}")
    if outputs:
        with outputs.drafts() as drafts:
            drafts.paths[0].mkdir()
            page = drafts.paths[0] / "compare.html"
            write_compare_page(found, names, [NAME, *config.flags(given)], page)
        log.info("wrote %s", outputs.paths[0] / "compare.html")
    return 0


def _names(folders: Sequence[str]) -> tuple[str, str]:
    """The folders' own names, or what tells them apart."""
    first, second = (Path(folder) for folder in folders)
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


def _refused(arguments: Sequence[str], names: Sequence[str]) -> str:
    """The first argument that sets one of these flags."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and (name in names or name.removeprefix("no") in names):
            return argument
    return ""


COMMAND = Command(
    NAME, DESCRIPTION, FoldsConfig, run, positional=("image_dir", "output"), forwards=True
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
