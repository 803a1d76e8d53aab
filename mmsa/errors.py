"""Errors that a user can fix: each names the requirement, the value that came, and the command to type."""


class MmsaError(Exception):
    """Base of every error that the user can fix; shown as a few lines, without a traceback.

    Whatever of a file it quotes, its text is safe on a terminal.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class ConfigError(MmsaError):
    """An option is unknown, of the wrong type, out of range, or does not fit another option."""


class DataError(MmsaError):
    """A source file or a store is missing, damaged, or not what the data set states."""


class TrainingError(MmsaError):
    """Training met a value with which it cannot continue."""


class RankError(MmsaError):
    """Another process of a run on several devices has ended before the training did."""


class UndefinedScore(TrainingError):
    """The monitored value is undefined in every epoch, so that there is nothing to select and nothing to learn from."""


class Pruned(Exception):
    """A run that its sweep ends early, because of its score alone."""


class Disowned(BaseException):
    """Another worker has taken this run over: nothing more is written to its folder, its tracker or its study."""


def text_of(error: BaseException) -> str:
    """What an error says, or where it says nothing, the error that it was raised from; "" where none says anything."""
    said = str(error).strip()
    return said if said or error.__cause__ is None else text_of(error.__cause__)


def first_line(error: BaseException) -> str:
    """The first line of `text_of`, or the error's kind."""
    return (text_of(error) or type(error).__name__).splitlines()[0]


def stopped_by(error: Exception | SystemExit, around: BaseException | None = None) -> BaseException | None:
    """The Ctrl-C or signal that an error has replaced, as where a library's own closing fails; None without one.

    Args:
        error: which may have replaced it.
        around: what the caller of all this handles, which is no news.
    """
    behind: BaseException | None = error
    while behind is not around and isinstance(behind, Exception | SystemExit | GeneratorExit):
        behind = behind.__context__
    return None if behind is around else behind


def printable(text: str) -> str:
    """A file's own text in one line of a terminal: signs that control it, or that nobody sees, are escaped."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def printable_lines(text: str) -> str:
    """As `printable`, of a text in lines."""
    return "\n".join(map(printable, text.split("\n")))
