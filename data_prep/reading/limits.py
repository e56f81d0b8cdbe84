"""Upper bounds on an image that is read, checked against its header before anything is decoded."""

from dataclasses import dataclass

from data_prep.errors import UserError


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Size up to which an image is read; the defaults bound nothing that fits a machine.

    A few bytes can declare, or decompress to, any number of pixels. A program that reads the files
    of others, as a server does, sets limits that its memory bears.

    Attributes:
        max_pixels: Height times width of the whole picture.
        max_bytes: Memory that its stored values take: height x width x channels x bytes a value.
            Also what a compressed file (`.gz`, `.bz2`, a member of an NPZ) may unpack to.
    """

    max_pixels: int = 2**40
    max_bytes: int = 2**40

    def check(self, height: int, width: int, channels: int, itemsize: int) -> None:
        """Refuses a picture that is too large.

        Args:
            height: Pixels.
            width: Pixels.
            channels: Values a pixel.
            itemsize: Bytes a value.

        Raises:
            UserError: It has more pixels, or takes more memory.
        """
        if height * width > self.max_pixels:
            raise UserError(
                f"{width} x {height} pixels, more than the {self.max_pixels} that are read here;"
                " cut it into tiles or make it smaller"
            )
        self.check_bytes(height * width * channels * itemsize)

    def check_bytes(self, number: int) -> None:
        """Refuses what takes, or unpacks to, more than `max_bytes`.

        Raises:
            UserError: It does.
        """
        if number > self.max_bytes:
            raise UserError(
                f"takes {number} bytes in memory, more than the {self.max_bytes} that are read"
                " here; cut it into smaller pieces"
            )
