"""`simclr-folds`: the same training over folds or seeds, with mean, spread and paired tests."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from data_prep.cli.image_flags import define_images
from data_prep.cli.request import asked

from data_prep.cli.app import given_flags, parse, run_handing_on, topic
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.storage import claimed

if TYPE_CHECKING:
    from finetune.folds import OneRun

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


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Training"):
        flags.DEFINE_enum(
            "command", "finetune", ["finetune", "transfer"], "simclr-finetune or -transfer.", **own
        )
        flags.DEFINE_string("output", None, "Folder for the runs and the page; of a comparison a"
                            " new folder.", **own)  # fmt: skip
    with topic(flag_values, "Folds"):
        flags.DEFINE_string("folds_dir", None, "Folder of fold_1.csv, fold_2.csv, ...", **own)
        flags.DEFINE_integer(
            "folds", None, "Or make so many of the images below: each is tested once.", **own
        )
        flags.DEFINE_float(
            "validation", 0.15, "--folds: share of a fold's rest that validates.", 0, 0.9, **own
        )
        flags.DEFINE_string(
            "group_by", "", "--folds: what must not be torn apart, see simclr-split.", **own
        )
        flags.DEFINE_integer("fold_seed", 0, "--folds: another seed, other folds.", **own)
        flags.DEFINE_list("seeds", [], "Or train on --manifest from each of these seeds.", **own)
    define_images(flag_values)
    with topic(flag_values, "Comparison"):
        flags.DEFINE_list("compare", [], "Two runs, or two folders of this command: A,B.", **own)


def run(flag_values: flags.FlagValues, arguments: Sequence[str] = ()) -> int:
    """Trains and reports, or compares.

    Args:
        flag_values: The parsed flags.
        arguments: Of the training command.
    """
    f = flag_values
    if f.compare:
        return _compare(f)
    if not f.output:
        raise UserError("--output is missing: say where the runs are to be kept")
    ways = [bool(f.folds_dir), f.folds is not None, bool(f.seeds)]
    if sum(ways) != 1:
        raise UserError("give one of --folds_dir=FOLDER, --folds=K and --seeds=0,1,2")
    refused = _refused(arguments, (*_OWN, *(["seed"] if f.seeds else [])))
    if refused:
        raise UserError(f"after --: {refused} is set by simclr-folds itself; leave it out")
    training, output = _Training(f.command, arguments), Path(f.output)
    busy = f"--output={output}: another process is at work there; wait for it to end"
    with claimed(output, busy):
        return _train(f, arguments, training, output)


def _train(
    f: flags.FlagValues, arguments: Sequence[str], training: "_Training", output: Path
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

    plan = FoldsPlan(f.command, tuple(arguments), _runs(f, output))
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    code = train_folds(plan, output, training)
    if code:
        return code
    result = read_folds(output)
    write_table(result, output / TABLE)
    note_warnings(result, output)
    command = [NAME, *given_flags(f), "--", *arguments]
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
        self._command, self._arguments = command, tuple(arguments)
        self._train = {"finetune": _finetune, "transfer": _transfer}[command]
        self._parsed([])  # says at once what is wrong

    def _parsed(self, more: Sequence[str]) -> flags.FlagValues:
        from finetune.cli import finetune, transfer

        values = flags.FlagValues()
        values.set_gnu_getopt(True)
        {"finetune": finetune, "transfer": transfer}[self._command].define(values)
        parse(values, [*self._arguments, *more], f"simclr-{self._command}")
        return values

    def __call__(self, one: "OneRun", folder: Path) -> int:
        """Trains a run; the exit code."""
        more = [f"--manifest={one.manifest}", f"--output={folder}"]
        more += [] if one.seed is None else [f"--seed={one.seed}"]
        command = (f"simclr-{self._command}", *self._arguments, *more)
        return self._train(self._parsed(more), command)


def _finetune(values: flags.FlagValues, command: Sequence[str]) -> int:
    from data_prep.cli import config_flags
    from finetune.config import FinetuneConfig, preset
    from finetune.finetune import finetune

    named = preset(values.preset)
    config = config_flags.read_as(FinetuneConfig, values, named)
    return finetune(config, config_flags.given(values, FinetuneConfig) | set(named), command)


def _transfer(values: flags.FlagValues, command: Sequence[str]) -> int:
    from data_prep.cli import config_flags
    from finetune.transfer import train_transfer
    from finetune.transfer_config import TransferConfig, preset

    return train_transfer(
        config_flags.read_as(TransferConfig, values, preset(values.preset)), command
    )


def _runs(f: flags.FlagValues, output: Path) -> "tuple[OneRun, ...]":
    from finetune.folds import OneRun, manifests_of

    if f.folds_dir:
        return manifests_of(f.folds_dir)
    if f.folds is not None:
        return manifests_of(_make_folds(f, output / "folds"))
    if not f.manifest or f.image_dir:
        raise UserError("--seeds needs --manifest: one split for all of them (simclr-split)")
    if not Path(f.manifest).is_file():
        raise UserError(f"--manifest={f.manifest}: no such file")
    if not all(seed.strip().isdigit() for seed in f.seeds) or len(set(f.seeds)) < len(f.seeds):
        raise UserError(f"--seeds={','.join(f.seeds)}: must be different whole numbers from 0")
    manifest = str(Path(f.manifest).resolve())
    return tuple(OneRun(f"seed_{int(seed)}", manifest, int(seed)) for seed in f.seeds)


def _make_folds(f: flags.FlagValues, folder: Path) -> Path:
    """Makes the folds, unless an earlier start of the same command has."""
    from data_prep.cli.image_flags import open_images

    from data_prep.manifest.groups import keep_together
    from data_prep.manifest.splits import FoldPlan, fold_names, make_folds, save_folds

    if folder.is_dir():
        return folder
    rest = {"train": 1 - f.validation, "validation": f.validation}
    plan = FoldPlan(f.folds, "test", rest={name: share for name, share in rest.items() if share})
    images, kept = keep_together(
        open_images(f), group_by=f.group_by, source=f.manifest or "", hashes=True,
        near_duplicates="mirrored", progress=progress_lines,
    )  # fmt: skip
    print(kept)
    folds = make_folds(images, plan, f.fold_seed)
    save_folds(dict(zip(fold_names(len(folds)), folds, strict=True)), folder)
    return folder


def _compare(f: flags.FlagValues) -> int:
    from finetune.folds import read_folds
    from finetune.folds_page import compare, compare_table, write_compare_page

    if len(f.compare) != 2:
        raise UserError(f"--compare={','.join(f.compare)}: give two folders, A,B")
    outputs = asked(f, NAME, ["output"]) if f.output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    found = compare(*(read_folds(folder) for folder in f.compare))
    names = _names(f.compare)
    print(compare_table(found, names).text())
    print("\n" + "\n".join(found.remarks))
    for name, own in zip(names, found.cautions, strict=True):
        for text in own:
            print(f"{name}: {text}")
    if outputs:
        with outputs.drafts() as drafts:
            drafts.paths[0].mkdir()
            page = drafts.paths[0] / "compare.html"
            write_compare_page(found, names, [NAME, *given_flags(f)], page)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-folds`."""
    return run_handing_on(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
