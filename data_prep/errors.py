"""The one error that users are meant to read."""


class UserError(ValueError):
    """Something the user gave cannot be used: one line that says what, and how to mend it.

    Commands print the message alone and exit with status 1; nothing has been written by then
    that was not there before.
    """
