"""The words of the command line in messages of the library, and flags that have other names now."""

import re
from collections.abc import Sequence
from functools import cache

from mal_graph.cli.options import flag_of
from mal_graph.errors import UsageError
from mal_graph.option_names import RENAMED

# The option that an old flag means, or the flag that it is now.
OLD_FLAGS = {
    f"--{old.replace('_', '-')}": new for old, new in RENAMED.items() if old not in ("output", "state", "proof")
}
OLD_FLAGS |= {"--no-prove": "--no-verify", "--prove-full": "--verify-full", "--padding": "--resize-checks"}


@cache
def flags() -> dict[str, str]:
    """The flag of every option."""
    from mal_graph.config import CONFIGS, options_of
    from mal_graph.limits import Limits

    fields = [options_of(job) for job in CONFIGS] + [Limits.model_fields]
    named = {name: flag_of(name, field) for own in fields for name, field in own.items()}
    own = {"config": "--config", "data": "--data", "ancestor": "--ancestor", "models": "--model"}
    return {**named, "restart": "--force", "overwrite": "--force", **own}


def in_flags(text: str) -> str:
    """A message of the library, in which backticks hold options, for people who gave flags."""
    return re.sub(r"`(\w+)`", lambda match: flags().get(match[1], match[0]), text)


def new_flag(old: str) -> str:
    """The flag that an old one is now."""
    return flags().get(OLD_FLAGS[old], OLD_FLAGS[old])


def refuse_old_flags(words: Sequence[str]) -> None:
    """Raise UsageError for a flag that has another name now."""
    for word in words:
        flag = word.partition("=")[0]
        if flag in OLD_FLAGS:
            raise UsageError(f"there is no {flag}: it is {new_flag(flag)} now")
    if "evaluate" in words[:1] and "--output" in [word.partition("=")[0] for word in words]:
        raise UsageError("there is no --output: it is --score-output now")


def refuse_broken_words(words: Sequence[str]) -> None:
    """Raise UsageError for a word that no report could hold: a file's name in another encoding."""
    for word in words:
        if word.encode(errors="ignore").decode() != word:
            raise UsageError(f"{word!a} is not UTF-8: rename the file")
