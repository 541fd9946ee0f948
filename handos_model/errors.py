"""The error that a person reads."""


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong, where, and what to do.

    Commands print it as one line and exit with 2.
    """
