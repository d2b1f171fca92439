"""The one exception that is the user's to mend: its text is the whole message."""


class UserError(Exception):
    """Bad input. The text is one line: what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with 1; nothing else catches it.
    """
