"""Fails if modules import one another in a circle, also inside functions: part of `make lint`."""

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

PACKAGES = ("data_prep", "simclr_tf", "finetune")


def main() -> int:
    # The folder of this file has packages of the same names, the tests of them.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)  # a cache may be of files before a change
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        print("a circle of imports:", " <- ".join(error.args[1]))
        return 1
    print(f"no circle in the imports of {len(imports)} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
