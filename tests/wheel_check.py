"""Run in the environment that holds the built wheel: every command must answer --help.

A command is a script or a verb of `simclr`. Python's way in, with its types, must be there too.

Started by `make wheel-check` from a folder outside the sources, so that what is tried is what the
wheel brought; with `-P`, for beside this file lie packages of tests of the same names.
"""

import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

# On a machine that is busy with other work a start takes a few times the 1.5 s of an idle one.
LONGEST_START = 6.0


def main() -> int:
    package = distribution("simclr-tf")
    scripts = [e.name for e in package.entry_points if e.group == "console_scripts"]
    from finetune.cli.simclr import VERBS

    commands = scripts + [f"simclr {verb.name}" for verb in VERBS]
    failed = 0
    for name in commands:
        began = time.perf_counter()
        script, *verb = name.split()
        command = [str(Path(sys.executable).parent / script), *verb, "--help"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        good = answer.returncode == 0 and "--" in answer.stdout and seconds < LONGEST_START
        print(f"{'ok  ' if good else 'FAIL'} {name} --help  {seconds:.2f} s")
        if not good:
            failed += 1
            print(answer.stdout[-500:], answer.stderr[-1500:], sep="\n")
    print(f"{len(commands) - failed} of {len(commands)} commands of the wheel answer")
    import simclr_tf

    place = Path(simclr_tf.__file__).parent
    missing = [x for x in ("__init__.pyi", "py.typed") if not (place / x).is_file()]
    missing += [x for x in ("pretrain", "finetune") if not callable(getattr(simclr_tf, x, None))]
    print(f"{place} lacks {', '.join(missing)}" if missing else "simclr_tf has its functions")
    return 1 if failed or not scripts or missing else 0


if __name__ == "__main__":
    sys.exit(main())
