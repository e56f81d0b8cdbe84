"""The flat surface around the structures, whose depth is known, set to that depth.

Networks leave noise of a unit or so on a surface that is level by construction. Where a
predicted depth is within a tolerance of the known surface depth of its case, it becomes that depth;
nothing else changes. The floor of a hole that is no deeper than the tolerance would be flattened
too, so the tolerance must be smaller than the shallowest structure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.errors import UserError


@dataclass(frozen=True)
class Background:
    """The known surface.

    Attributes:
        depths: case -> depth of its surface; "" = of every case that is not named.
        tolerance: in units of depth.
    """

    depths: Mapping[str, float]
    tolerance: float

    def apply(self, depth: np.ndarray, cases: Sequence[str]) -> np.ndarray:
        """The maps with a level surface.

        Args:
            depth: float32 [n, H, W].
            cases: [n], of every map.

        Returns:
            float32 [n, H, W]; the argument is left as it is.

        Raises:
            UserError: A case whose surface depth is not given.
        """
        levels = np.array([self._of(case) for case in cases], np.float32)[:, np.newaxis, np.newaxis]
        near = np.abs(depth - levels) <= self.tolerance
        return np.where(near, levels, depth)

    def _of(self, case: str) -> float:
        depth = self.depths.get(case, self.depths.get(""))
        if depth is None:
            raise UserError(
                f"--surface_depth names no depth for the case {case!r} (it names"
                f" {', '.join(self.depths)}); add {case}:DEPTH, or a depth for all others"
            )
        return depth


def parse_background(items: Sequence[str], tolerance: float) -> Background | None:
    """What flags say of the surface.

    Args:
        items: `DEPTH`, which holds for every case that is not named, or `CASE:DEPTH`; none = None.
        tolerance: In units of depth.

    Raises:
        UserError: An item of another form, or a case twice.
    """
    depths: dict[str, float] = {}
    for item in items:
        case, _, text = item.rpartition(":")
        try:
            depth = float(text)
        except ValueError:
            raise UserError(
                f"--surface_depth={','.join(items)}: must be a depth, or CASE:DEPTH,CASE:DEPTH"
            ) from None
        if case in depths:
            raise UserError(f"--surface_depth={','.join(items)}: {case or 'a depth'} comes twice")
        depths[case] = depth
    return Background(depths, tolerance) if depths else None
