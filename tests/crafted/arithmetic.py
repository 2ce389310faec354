"""Arithmetic that the processor refuses, and models that end in no value."""

import numpy as np
from onnx import ModelProto, TensorProto

from crafted.kind import LEAST, begun, computed, model

ENDED = r"ended the process that ran it \(SIGFPE\): leave it out"


def divided(op: str, by: int, is_computed: bool, kind: type = np.int64, least: int = LEAST) -> ModelProto:
    """Whole numbers divided by a number, stored or computed."""
    net, x = begun()
    number = net.constant(np.array([by], kind))
    if is_computed:
        number = net.op(
            "Cast", computed(net, x, by), to=int(TensorProto.INT64 if kind is np.int64 else TensorProto.INT32)
        )
    quotient = net.op(op, net.constant(np.array([least], kind)), number)
    return net.proto(net.op("Add", x, net.op("Cast", quotient, to=TensorProto.FLOAT)))


@model(ENDED)
def division_of_the_least_number():
    return divided("Div", -1, False)


@model(ENDED)
def computed_division_of_the_least_number():
    return divided("Div", -1, True)


@model(ENDED)
def division_of_the_least_short_number():
    return divided("Div", -1, False, np.int32, -(2**31))


@model("nothing can be said of its axes")
def division_by_zero():
    return divided("Div", 0, False)


@model("nothing can be said of its axes")
def computed_division_by_zero():
    return divided("Div", 0, True)


@model("nothing can be said of its axes")
def remainder_by_zero():
    return divided("Mod", 0, True)


@model("")
def remainder_of_the_least_number():
    return divided("Mod", -1, True)


@model("")
def shift_by_many():
    net, x = begun()
    shifted = net.op(
        "BitShift", net.constant(np.array([1], np.uint64)), net.constant(np.array([200], np.uint64)), direction="LEFT"
    )
    return net.proto(net.op("Add", x, net.op("Cast", shifted, to=TensorProto.FLOAT)))


@model("")
def numbers_that_are_none():
    net, x = begun()
    return net.proto(net.op("Div", x, net.op("Sub", x, x)))


@model("")
def cast_of_what_is_no_number():
    net, x = begun()
    lost = net.op("Cast", net.op("Div", x, net.op("Sub", x, x)), to=TensorProto.INT64)
    return net.proto(net.op("Add", x, net.op("Cast", lost, to=TensorProto.FLOAT)))


@model("nothing can be said of its axes")
def gather_beyond_the_end():
    net, x = begun()
    return net.proto(net.op("Gather", x, net.constant([1 << 40]), axis=1))


@model("nothing can be said of its axes")
def top_of_more_than_all():
    net, x = begun()
    return net.proto(*net.op("TopK", x, net.constant([1 << 40]), outputs=2)[:1])


@model("nothing can be said of its axes")
def regular_expression_that_is_none():
    net, x = begun()
    text = net.op("Cast", x, to=TensorProto.STRING)
    return net.proto(x, net.op("RegexFullMatch", text, pattern="(((("))
