"""The cases of the law that every merge method is for every graph: kinds of networks, front ends, and widths."""

from functools import cache

import numpy as np
from builders import cnn, mlp, narrower, noisy, vit, wider

import mal_graph
from mal_graph.methods import Need
from mal_graph.symmetry import axis_groups

try:
    from traced_nets import traced
except ImportError:
    traced = None

EXPORTED = {
    "perceptron": lambda: mlp((4, 6, 3), 0),
    "convolutions": lambda: cnn((4, 6), blocks=0, size=4),
    "transformer": vit,
}
FORMS = ("exported", "traced")
WIDTHS = {"equal": 0, "wider": 2, "narrower": -2}  # of the donors beside the base
CASES = [(kind, form, width) for kind in EXPORTED for form in FORMS for width in WIDTHS]
QUICK = {"verify": False, "compare": False, "repair": False}  # what these say is not asked here
NO_GRADIENTS = "learns by gradients of the base"
NO_FEWER = "has fewer units than the base where a norm or mean is taken over them"


@cache
def models_of(kind, form, width):
    """A base and two donors, and the name and shape of a sample that they take."""
    if form == "traced":
        modules, (name, shape) = traced(kind, WIDTHS[width])
        return [mal_graph.trace(module, np.zeros((2, *shape), np.float32)) for module in modules], (name, shape)
    base = EXPORTED[kind]()
    (value,) = base.inputs
    donors = [noisy(base, 0.1, seed) for seed in (1, 2)]
    if width != "equal" and kind == "transformer":  # other widths of its stream, which norms are taken over
        donors = [vit(seed, 8 + WIDTHS[width]) for seed in (1, 2)]
    elif width != "equal":
        change = wider if width == "wider" else narrower
        donors = [change(donor, axis_groups(base), seed)[0] for seed, donor in enumerate(donors)]
    return [base, *donors], (value.name, value.shape[1:])


def refusal(method, kind, form, width):
    """Why a method is not for a case; "" where it is."""
    if method.takes_gradients and form == "exported":
        return NO_GRADIENTS
    return NO_FEWER if (kind, form, width) == ("transformer", "exported", "narrower") else ""


def merged(method, kind, form, width):
    """What a method makes of a case, and the inputs that it was made on. Raises UsageError or MatchError."""
    (base, *donors), (called, shape) = models_of(kind, form, width)
    donors = donors[: method.models and method.models - 1]
    rng = np.random.default_rng(0)
    each = [{called: rng.standard_normal((16, *shape)).astype(np.float32)} for _ in range(1 + len(donors))]
    options = {"calibrate_of": each} if method.takes_inputs else {}
    options |= {"ancestor": base} if method.needs is Need.ANCESTOR else {}
    options |= {"parameters": {"steps": 2}} if method.lesson is not None else {}
    return mal_graph.assemble(base, donors, method=method.name, **options, **QUICK), each[0]
