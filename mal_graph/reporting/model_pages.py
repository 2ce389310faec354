"""The pages of `match` and `inspect`: what two models have in common, and what one consists of."""

from mal_graph.reporting.documents import MatchDocument
from mal_graph.reporting.evidence import evidence_pieces, file_name, reason_pieces
from mal_graph.reporting.folding import match_table
from mal_graph.reporting.inspection import InspectDocument
from mal_graph.reporting.inspection_text import coverage_line, group_table, unknown_lines
from mal_graph.reporting.pieces import Headline, Page, bullets, folded, rows, sections
from mal_graph.reporting.text import difference_lines, pairs_line, signature_lines


def match_page(document: MatchDocument) -> Page:
    table, _ = match_table(document.ladder, verbose=True)
    differences = [line for pair in document.pairs for line in difference_lines(pair.base, pair.differences)]
    return Page(
        title=f"{file_name(document.base)} and {file_name(document.donor)}",
        about="mal-graph match",
        headline=Headline(pairs_line(document)),
        before=(),
        ladders=(document.ladder,),
        after=sections(
            ("Inputs and outputs", bullets(signature_lines([document.signatures]))),
            ("What differs in matched layers", bullets(differences)),
            ("Pairs", folded("Every layer, with the reason", [table])),
            ("Layers without a partner", reason_pieces("Of the base", "base layer", document.unmatched_base)),
            ("Donor layers without a partner", reason_pieces("Of the donor", "donor layer", document.unmatched_donor)),
            ("Verification", evidence_pieces([document.ladder])),
        ),
    )


def inspect_page(document: InspectDocument) -> Page:
    missing = [f"{left.parameters:,} parameters: {left.reason}" for left in document.missing]
    return Page(
        title=file_name(document.model),
        about="mal-graph inspect",
        headline=Headline(coverage_line(document)),
        before=(),
        ladders=(document.ladder,),
        after=sections(
            ("Not verified", bullets(missing)),
            ("Operators without a rule", bullets(unknown_lines(document))),
            ("Axis groups", rows(group_table(document.groups, verbose=False), "Groups that are not pinned")),
        ),
    )
