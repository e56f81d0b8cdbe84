"""`simclr`: every command as a verb, with a help that searches all of them.

A verb shares everything with its script: `simclr split` is `simclr-split`.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from data_prep.cli.app import EXIT_OK, EXIT_USAGE
from data_prep.cli.command import Command
from data_prep.phrases import did_you_mean

NAME = "simclr"


@dataclass(frozen=True)
class Verb:
    """A verb of `simclr`.

    Attributes:
        name: The verb.
        group: Heading that it stands under.
        module: Module of its command.
        meaning: One line.
    """

    name: str
    group: str
    module: str
    meaning: str

    def command(self) -> Command:
        """The command, imported now."""
        command: Command = importlib.import_module(self.module).COMMAND
        return command


VERBS = (
    Verb("check", "Look", "data_prep.cli.check", "find what would spoil the numbers"),
    Verb("stats", "Look", "data_prep.cli.stats", "mean and spread, class weights, batch size"),
    Verb("embed", "Look", "simclr_tf.cli.embed", "features, clusters and a page to explore"),
    Verb("split", "Divide", "data_prep.cli.split", "splits and folds that tear nothing apart"),
    Verb("label-fraction", "Divide", "data_prep.cli.label_fraction", "leave labels to a few"),
    Verb("manifest", "Divide", "data_prep.cli.manifest", "list images, pages, stacks and tiles"),
    Verb("augment", "Prepare", "data_prep.cli.augment", "augmented copies; a look at any views"),
    Verb("tfrecord", "Prepare", "data_prep.cli.tfrecord", "pack images into shards"),
    Verb("synthesize", "Prepare", "data_prep.cli.synthesize", "labelled test images of five kinds"),
    Verb("data-service", "Prepare", "simclr_tf.cli.data_service", "batches from other machines"),
    Verb("pretrain", "Train", "simclr_tf.cli.pretrain", "learn from images without labels"),
    Verb("finetune", "Train", "finetune.cli.finetune", "a classifier on a pretrained network"),
    Verb("transfer", "Train", "finetune.cli.transfer", "a classifier on VGG16, ResNet50, ..."),
    Verb("distill", "Train", "simclr_tf.cli.distill", "a small network learns from a large one"),
    Verb("depth-train", "Train", "finetune.cli.depth_train", "networks that make depth maps"),
    Verb("run", "Train", "simclr_tf.cli.run", "SimCLR's run.py, with its flags and defaults"),
    Verb("compare", "Decide", "finetune.cli.compare", "the best strategy for one's own images"),
    Verb("sweep", "Decide", "simclr_tf.cli.sweep", "pretraining over methods, settings and seeds"),
    Verb("folds", "Decide", "finetune.cli.folds", "the same training over folds or seeds"),
    Verb("predict", "Use", "finetune.cli.predict", "classify images"),
    Verb("depth-predict", "Use", "finetune.cli.depth_predict", "predict depth maps"),
    Verb("export", "Use", "finetune.cli.export", "ONNX, SavedModel or Keras file"),
    Verb("serve", "Use", "finetune.cli.serve", "a local page to drop images on"),
    Verb("zoo", "Checkpoints", "simclr_tf.cli.zoo", "the public checkpoints"),
    Verb("convert", "Checkpoints", "simclr_tf.cli.convert", "checkpoints to Keras models and back"),
    Verb("demo", "More", "finetune.cli.demo", "the whole job on generated images"),
    Verb("doctor", "More", "simclr_tf.cli.doctor", "what this machine has, and how fast it trains"),
)  # fmt: skip
_OWN = {
    "help WORD": "flags of all verbs whose name or meaning has the word",
    "completion SHELL": "lines for the start-up file of bash, zsh or fish",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr`: runs the verb's command, or helps."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    by_name = {v.name: v for v in VERBS}
    if verb in by_name:
        return by_name[verb].command().main(rest)
    own = {"help": _help, "completion": _completion, "complete-words": _complete}
    if verb in own:
        return own[verb](rest)
    if verb == "--version":
        print(f"simclr-tf {version('simclr-tf')}")
        return EXIT_OK
    if verb in {"--help", "-h", "--helpfull", "-?"}:
        print(_overview())
        return EXIT_OK
    hint = did_you_mean(verb.removeprefix("simclr-"), [*by_name, *own])
    return _refuse(f"there is no verb {verb}{hint} (simclr --help lists them)")


def _refuse(message: str) -> int:
    print(f"{NAME}: error: {message}", file=sys.stderr)
    return EXIT_USAGE


def _overview() -> str:
    lines = [
        "From a folder of images with few labels to a trained, honestly measured model.",
        "",
        "  simclr pretrain IMAGES OUT          learn from all images, without labels",
        "  simclr finetune OUT CLASSIFIER      a classifier from the labels there are",
        "  simclr predict CLASSIFIER NEW --output=predictions.csv",
        "",
        "Usage: simclr VERB ...; VERB --help shows what matters, --helpfull every flag",
    ]
    for group in dict.fromkeys(v.group for v in VERBS):
        lines += ["", group]
        lines += [f"  {v.name:<18}{v.meaning}" for v in VERBS if v.group == group]
    lines += [f"  {name:<18}{meaning}" for name, meaning in _OWN.items()]
    return "\n".join(lines)


def _help(words: Sequence[str]) -> int:
    """Prints the flags that have all of some words in their names or meanings."""
    if not words:
        print(_overview())
        return EXIT_OK
    if len(words) == 1 and words[0] in {v.name for v in VERBS}:
        return main([words[0], "--help"])
    wanted = [word.lower().lstrip("-") for word in words]
    found: dict[tuple[str, str], list[str]] = {}
    for verb in VERBS:
        for s in verb.command().config_type.settings():
            if all(word in f"{s.name} {s.also} {s.help}".lower() for word in wanted):
                found.setdefault((s.name, s.help), []).append(verb.name)
    if not found:
        return _refuse(f"no flag speaks of {' and '.join(wanted)}")
    # Names before meanings.
    for (name, meaning), verbs in sorted(found.items(), key=lambda f: wanted[0] not in f[0][0]):
        print(f"--{name}  ({', '.join(verbs)})\n    {meaning}")
    return EXIT_OK


_SHELLS = {
    "bash": """_simclr() {
  COMPREPLY=($(compgen -W "$(simclr complete-words "${COMP_WORDS[@]:1:COMP_CWORD-1}")" \\
    -- "${COMP_WORDS[COMP_CWORD]}"))
  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o nospace -F _simclr simclr""",
    "zsh": """_simclr() {
  local -a words_known
  words_known=(${(f)"$(simclr complete-words ${words[2,CURRENT-1]})"})
  compadd -S '' -a words_known
  _files
}
compdef _simclr simclr""",
    "fish": """complete -c simclr -a \\
  '(simclr complete-words (commandline -opc)[2..-1] 2>/dev/null)'""",
}


def _completion(shells: Sequence[str]) -> int:
    """Prints what a shell's start-up file needs."""
    if len(shells) != 1 or shells[0] not in _SHELLS:
        return _refuse(f"say for which shell: simclr completion {'|'.join(_SHELLS)}")
    print(_SHELLS[shells[0]])
    return EXIT_OK


def _complete(words: Sequence[str]) -> int:
    """Prints what may follow some words, one a line."""
    by_name = {v.name: v for v in VERBS}
    if not words:
        print("\n".join([*by_name, "help", "completion"]))
    elif words[0] in by_name:
        for s in by_name[words[0]].command().config_type.settings():
            print(f"--{s.name}" if s.kind is bool else f"--{s.name}=")
    elif words[0] == "completion":
        print("\n".join(_SHELLS))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
