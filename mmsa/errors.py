"""Errors that a user can fix: each names the requirement, the value that came, and the command to type."""


class MmsaError(Exception):
    """Base of every error that the user can fix; shown as a few lines, without a traceback."""


class ConfigError(MmsaError):
    """An option is unknown, of the wrong type, out of range, or does not fit another option."""


class DataError(MmsaError):
    """A source file or a store is missing, damaged, or not what the data set states."""


class TrainingError(MmsaError):
    """Training met a value with which it cannot continue."""


class Pruned(Exception):
    """A run that its sweep ends early, because of its score alone."""


def printable(text: str) -> str:
    """A file's own text as a terminal may be shown it."""
    return "".join(character if character.isprintable() else "?" for character in text)
