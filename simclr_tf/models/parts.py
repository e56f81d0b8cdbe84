"""The parts of a network that freezing knows, by the names that flags give them."""

# The stem, the four block groups, the projection head.
PARTS: tuple[str | int, ...] = ("stem", 1, 2, 3, 4, "head")
