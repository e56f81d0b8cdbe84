"""Run in the environment that holds the built wheel: every console command must answer --help.

Started by `make wheel-check` from a folder outside the sources, so that what is tried is what the
wheel brought.
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
    commands = [e.name for e in package.entry_points if e.group == "console_scripts"]
    failed = 0
    for name in commands:
        began = time.perf_counter()
        command = [str(Path(sys.executable).parent / name), "--help"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        good = answer.returncode == 0 and "--" in answer.stdout and seconds < LONGEST_START
        print(f"{'ok  ' if good else 'FAIL'} {name} --help  {seconds:.2f} s")
        if not good:
            failed += 1
            print(answer.stdout[-500:], answer.stderr[-1500:], sep="\n")
    print(f"{len(commands) - failed} of {len(commands)} commands of the wheel answer")
    return 1 if failed or not commands else 0


if __name__ == "__main__":
    sys.exit(main())
