"""What a merge makes of every float parameter of the base, for people and for programs."""

from collections.abc import Collection, Iterable, Iterator

from pydantic import BaseModel

from mal_graph.merging import Account, Accounts, Fate

NAMED = 3  # tensors that one line names


class LeftEntry(BaseModel):
    """Float parameters of the base that are not merged for one reason, with the layers that apply them."""

    reason: str
    parameters: int
    tensors: list[str]
    layers: list[str] = []


class AccountsEntry(BaseModel):
    """How many float parameters the base stores, and what becomes of each of them: one of three things."""

    total: int
    merged: int
    kept: int
    settings: int
    kept_why: list[LeftEntry] = []
    settings_why: list[LeftEntry] = []


def accounts_entry(accounts: Accounts) -> AccountsEntry:
    """The three lists with their sums."""
    return AccountsEntry(
        total=accounts.total,
        merged=accounts.count(Fate.MERGED),
        kept=accounts.count(Fate.KEPT),
        settings=accounts.count(Fate.SETTING),
        kept_why=list(left_entries(entry for entry in accounts.entries if entry.fate is Fate.KEPT)),
        settings_why=list(left_entries(entry for entry in accounts.entries if entry.fate is Fate.SETTING)),
    )


def left_entries(entries: Iterable[Account]) -> Iterator[LeftEntry]:
    """What is not merged, each reason and set of layers once."""
    alike: dict[tuple[str, tuple[str, ...]], list[Account]] = {}
    for entry in entries:
        alike.setdefault((entry.reason, entry.layers), []).append(entry)
    for (reason, layers), several in alike.items():
        yield LeftEntry(
            reason=reason,
            parameters=sum(entry.size for entry in several),
            tensors=[entry.tensor for entry in several],
            layers=list(layers),
        )


def accounts_lines(accounts: AccountsEntry, told: Collection[str], verbose: bool) -> Iterator[str]:
    """The three sums, and what is kept beside the layers that are told of; settings if `verbose`."""
    parts = ((accounts.merged, "merged"), (accounts.kept, "kept"), (accounts.settings, "settings"))
    yield f"of {accounts.total:,} float parameters of the base: " + ", ".join(
        f"{what} {count:,} ({count / max(1, accounts.total):.1%})" for count, what in parts
    )
    for left in accounts.kept_why:
        if not set(left.layers) & set(told):
            yield left_line("kept", left)
    for left in accounts.settings_why if verbose else ():
        yield left_line("a setting", left)


def left_line(what: str, left: LeftEntry) -> str:
    named = ", ".join(left.tensors[:NAMED]) + (", ..." if len(left.tensors) > NAMED else "")
    where = f" of {', '.join(left.layers)}" if left.layers else ""
    return f"{left.parameters:,} parameters{where} ({named}) are {what}: {left.reason}"
