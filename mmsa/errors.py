"""Errors that a user can mend: each says what was required, what came, and what to type."""


class MmsaError(Exception):
    """Base of every error that is the user's to mend; shown as a few lines, without a traceback."""


class ConfigError(MmsaError):
    """An option is unknown, of the wrong type, out of range, or does not fit another option."""


class DataError(MmsaError):
    """A source file or a store is missing, damaged, or not what the data set states."""


class TrainingError(MmsaError):
    """Training met a value with which it cannot go on."""


class Pruned(Exception):
    """A run that its sweep ends before its time: nothing is wrong with it but its score."""


def printable(text: str) -> str:
    """A file's own text as a terminal may be shown it."""
    return "".join(character if character.isprintable() else "?" for character in text)
