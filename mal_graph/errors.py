"""Errors a user can cause, and what is said without one. Each message is one sentence: what failed, where, what was
found, what to do."""


class MalGraphError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits with 2."""


class FileError(MalGraphError):
    """A file is missing, broken, unsafe, or cannot be written."""


class UnsupportedModel(MalGraphError):
    """The file is sound, but holds something that cannot be merged (integer arithmetic, sparse tensors)."""


class RunError(MalGraphError):
    """The runtime refused a model or its inputs."""


class LimitError(MalGraphError):
    """A model crashed the process that ran it, or took more time or memory than it may. No RunError: what tries several
    ways to run a model must not try this one again."""


class MemoryLimitError(LimitError):
    """A model took more memory than it may: on smaller inputs it may do with less."""


class TimeLimitError(LimitError):
    """A model took more time than it may: on fewer samples it may do with less."""


class ShapeError(MalGraphError):
    """Two things that must agree in shape do not."""


class MatchError(MalGraphError):
    """No layers correspond to each other, or a pair list is impossible."""


class DataError(MalGraphError):
    """Data given for evaluation or as inputs do not fit the model."""


class GateFailed(MalGraphError):
    """A result is not sound; nothing is put in place."""


class UsageError(MalGraphError):
    """An option's value makes no sense (lambda outside [0, 1], a selector that selects nothing)."""


class ModelWarning(UserWarning):
    """Base of every warning that this package gives of a model; the command line prints it."""


class DataFileWarning(ModelWarning):
    """Weights are read from a file that is not called as one that holds weights."""


class TraceWarning(ModelWarning):
    """A module is traced otherwise than it stands."""
