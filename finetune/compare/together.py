"""Several chains at the same time, each in a process of its own that sees one GPU."""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from data_prep.errors import UserError
from finetune.compare.plan import FILE, cpu_or_gpus

log = logging.getLogger(__name__)


class Together:
    """Starts the command again and again, each time for a part of the work.

    Args:
        command: Module and arguments.
        parallel: Processes at the same time.
    """

    def __init__(self, command: Sequence[str], parallel: int) -> None:
        self._command, self._parallel = tuple(command), parallel

    def plan(self, output: Path) -> int:
        """Plans in a process of its own, whose memory on the GPU is free again afterwards.

        Args:
            output: Folder of the comparison; what has been planned there stays.

        Returns:
            Its exit code.
        """
        if (output / FILE).is_file():
            return 0
        return self._start(0, "--plan_only", f"--parallel={self._parallel}")

    def run(self, names: Sequence[str]) -> None:
        """Works on chains.

        Args:
            names: Of their encoders.

        Raises:
            UserError: A process has failed; its lines in the log say why.
        """
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self._parallel):
            slots.put(slot)

        def work(name: str) -> int:
            slot = slots.get()
            try:
                log.info("%s: begins in a process of its own", name)
                return self._start(slot, f"--only={name}")
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(self._parallel) as pool:
            codes = list(pool.map(work, names))
        if failed := [name for name, code in zip(names, codes, strict=True) if code]:
            raise UserError(
                f"{', '.join(failed)} did not come to an end, see above; the same command goes on"
            )

    def _start(self, slot: int, *arguments: str) -> int:
        command = [sys.executable, "-m", *self._command, *arguments]
        return subprocess.run(command, env=_environment(slot), check=False).returncode


def _environment(slot: int) -> dict[str, str]:
    """The environment of a process that sees one GPU, if there are any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = [d for d in visible.split(",") if d] or [str(n) for n in range(cpu_or_gpus())]
    return {**os.environ, "CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}
