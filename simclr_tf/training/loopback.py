"""Keeps servers that listen on every address of a machine to the loopback interface.

TensorFlow's data service cannot be told an address to listen on. Linux lets the owner of a socket
drop what comes for other addresses before anybody sees it (a socket filter, see
`Documentation/networking/filter.rst` of the kernel).
"""

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from data_prep.errors import UserError

_SO_ATTACH_FILTER = 26
_NETWORK_HEADER = 0xFFF00000  # offsets from here on count from the header of IP
_LOAD_BYTE, _LOAD_WORD, _SHIFT_RIGHT, _IF_EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 0x06
_PASS, _DROP = 14, 15  # numbers of the last two instructions

# Kind, then for comparisons the instructions to go on with if equal and if not, then a number.
_ONLY_LOOPBACK = (
    (_LOAD_BYTE, 0, 0, _NETWORK_HEADER),
    (_SHIFT_RIGHT, 0, 0, 4),
    (_IF_EQUAL, 3, 6, 4),  # the version of IP
    (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 16),  # destination, 127.x.x.x
    (_SHIFT_RIGHT, 0, 0, 24),
    (_IF_EQUAL, _PASS, _DROP, 127),
    (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 24),  # destination, ::1
    (_IF_EQUAL, 8, _DROP, 0),
    (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 28),
    (_IF_EQUAL, 10, _DROP, 0),
    (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 32),
    (_IF_EQUAL, 12, _DROP, 0),
    (_LOAD_WORD, 0, 0, _NETWORK_HEADER + 36),
    (_IF_EQUAL, _PASS, _DROP, 1),
    (_RETURN, 0, 0, 0xFFFFFFFF),
    (_RETURN, 0, 0, 0),
)


def is_loopback(host: str) -> bool:
    """True if a host is `localhost` or an address of the loopback interface, [::1] in brackets.

    Other names are not looked up: what they stand for may change.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:  # a name
        return False


@contextmanager
def only_loopback(refusal: str) -> Iterator[None]:
    """Keeps every server that is started in the block to the loopback interface.

    Args:
        refusal: What to say where the system cannot do that.

    Raises:
        UserError: The system cannot; the server that was started must be given up then.
    """
    before = {inode for inode, _ in _listening()} if os.path.isdir("/proc/self/fd") else set()
    yield
    try:
        for inode, number in _listening():
            if inode not in before:
                _attach(number)
    except OSError:
        raise UserError(refusal) from None


def _listening() -> list[tuple[int, int]]:
    """Inode and descriptor of every socket of this process that listens."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            status = os.fstat(number)
            if stat.S_ISSOCK(status.st_mode):
                with socket.socket(fileno=os.dup(number)) as copy:
                    if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.append((status.st_ino, number))
        except OSError:  # closed meanwhile, or of a kind that does not listen
            continue
    return found


def _attach(number: int) -> None:
    instructions = []
    for place, (kind, equal, other, value) in enumerate(_ONLY_LOOPBACK):
        # Jumps count from the next instruction on.
        jumps = (equal - place - 1, other - place - 1) if kind == _IF_EQUAL else (0, 0)
        instructions.append(struct.pack("HBBI", kind, *jumps, value))
    program = ctypes.create_string_buffer(b"".join(instructions))
    with socket.socket(fileno=os.dup(number)) as copy:
        address = ctypes.addressof(program)
        copy.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(instructions), address)
        )
