"""Builds the models of the group study: timm families and our own small networks, random weights, as ONNX files.

    python tools/make_suite_models.py suite_models

Every file is named <network>.<exporter>.onnx; one that exists is not made again. What could not be built stands with
its cause in `not_built.json` in the same folder, and at the end of the run. Needs torch, onnxscript and timm. Beside a
torch that PyPI's torchvision does not fit, install timm with `--no-deps`: a stand-in is put in torchvision's place.
"""

import argparse
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import os
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

SEED = 0
CLASSES = 10
SIDES = (64, 96, 128)  # image sides tried in turn, before the model's own
NEEDS_OWN_SIDE = ("vgg11", "vgg11_bn")  # run at any, but are exported at their own only

# The smallest member of each family, as far as its exports stay below some 100 MB.
TIMM = (  # noqa: SIM905  # so many names are easier to read as words
    "resnet18 resnet50 resnet26d resnext50_32x4d seresnext26d_32x4d wide_resnet50_2 resnetaa34d resnetblur18 "
    "resnetrs50 resnet50_gn eca_resnet33ts ecaresnet26t gcresnet33ts resnetv2_18 resnetv2_50x1_bit regnetx_002 "
    "regnety_002 regnetz_005 densenet121 densenetblur121d inception_v3 inception_v4 inception_resnet_v2 "
    "legacy_xception xception41 xception65 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small_035 "
    "mobilenetv4_conv_blur_medium efficientnet_lite0 efficientnet_b0 efficientnet_b0_gn efficientnet_es "
    "efficientnet_cc_b0_4e efficientnetv2_rw_t tf_efficientnetv2_b0 mnasnet_small semnasnet_075 spnasnet_100 "
    "ghostnet_050 ghostnetv2_100 ghostnetv3_050 convnext_atto convnext_zepto_rms convnextv2_atto hrnet_w18_small dla34 "
    "dla46x_c dla60_res2net dpn48b dpn68 res2net50_14w_8s res2next50 resnest14d skresnet18 skresnext50_32x4d "
    "selecsls42 legacy_seresnet18 legacy_seresnext26_32x4d vgg11 vgg11_bn darknet17 cspdarknet53 cspresnet50 "
    "cspresnext50 cs3darknet_focus_s cs3darknet_s cspnext_tiny vovnet39a ese_vovnet19b_slim eca_vovnet39b "
    "hardcorenas_a tinynet_e fbnetc_100 fbnetv3_b mixnet_s mixnet_xxl rexnet_100 rexnetr_100 repvgg_a0 repvgg_b1g4 "
    "repghostnet_050 repvit_m0_9 mobileone_s0 nfnet_l0 eca_nfnet_l0 nf_regnet_b0 nf_resnet26 dm_nfnet_f0 mixer_s32_224 "
    "gmixer_12_224 resmlp_12_224 gmlp_ti16_224 poolformer_s12 poolformerv2_s12 convformer_s18 inception_next_atto "
    "starnet_s050 lcnet_035 lcnetv2_small hgnet_tiny hgnetv2_b0 rdnet_tiny focalnet_tiny_srf gernet_s tresnet_m "
    "convmixer_768_32 fasternet_t0 mambaout_femto"
).split()
ALSO_BY_DYNAMO = (  # noqa: SIM905  # so many names are easier to read as words
    "resnet18 regnety_002 densenet121 mobilenetv3_small_050 efficientnet_lite0 convnext_atto ghostnet_050 "
    "mixer_s32_224 repvgg_a0 res2net50_14w_8s"
).split()


class Exporter(NamedTuple):
    """One way to write a file: its name in the file's name, and what it passes to `torch.onnx.export`."""

    name: str
    options: Mapping[str, Any]


SCRIPT = Exporter("ts", {"dynamo": False, "opset_version": 17})
DYNAMO = (
    Exporter("dynamo", {"dynamo": True, "optimize": True}),
    Exporter("dynamo_raw", {"dynamo": True, "optimize": False}),
)


# --- timm without torchvision -----------------------------------------------------------------------------------


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers every import below `torchvision` with a module that holds an empty class under any name asked for.

    timm imports names of torchvision that the architectures never call.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = anything
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class Named(type):
    """A class whose every public attribute exists, so that enumerations of names resolve."""

    def __getattr__(cls, name: str) -> Any:
        return anything(name)


def anything(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Named(name, (nn.Module,), {})


def import_timm() -> Any:
    """timm, with a stand-in for torchvision where that does not load."""
    try:
        import torchvision  # noqa: F401  # it is only asked whether it loads
    except Exception:  # built for another torch: it raises what its C++ parts raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.meta_path.insert(0, StandIn())
    import timm

    return timm


# --- building ---------------------------------------------------------------------------------------------------


def roughened(model: nn.Module) -> nn.Module:
    """The model with every parameter and statistic made distinct: exporters share tensors of equal values."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.numel() and (tensor == tensor.flatten()[0]).all():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def timm_model(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A timm model and an image it accepts, the smallest side first."""
    timm = import_timm()
    torch.manual_seed(SEED)
    own = timm.get_pretrained_cfg(name)
    default = own.input_size[-1] if own is not None and own.input_size else 224
    refused: Exception | None = None
    for side in dict.fromkeys((*(() if name in NEEDS_OWN_SIDE else SIDES), default)):
        for sized in ({"img_size": side}, {}):  # models of patches must know the side
            try:
                model = roughened(timm.create_model(name, pretrained=False, num_classes=CLASSES, **sized))
                image = torch.randn(1, 3, side, side)
                with torch.no_grad():
                    model(image)
                return model, (image,)
            except Exception as error:
                refused = error
    raise refused or RuntimeError("no image side was tried")


def own_model(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """One of the networks of `suite_networks` and its inputs."""
    sys.path.insert(0, str(Path(__file__).parent))
    from suite_networks import NETWORKS

    torch.manual_seed(SEED)
    model, inputs = NETWORKS[name]()
    return roughened(model), inputs


def jobs() -> list[tuple[str, Exporter, Callable[[str], tuple[nn.Module, tuple[torch.Tensor, ...]]]]]:
    """Every file to be made: the network, how it is written, and how it is built."""
    sys.path.insert(0, str(Path(__file__).parent))
    from suite_networks import NETWORKS

    jobs = [(name, exporter, own_model) for exporter in (SCRIPT, *DYNAMO) for name in NETWORKS]
    jobs += [(name, SCRIPT, timm_model) for name in TIMM]
    return jobs + [(name, exporter, timm_model) for exporter in DYNAMO for name in ALSO_BY_DYNAMO]


def export(model: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, exporter: Exporter) -> None:
    """Write a model, completely or not at all."""
    unfinished = path.with_suffix(".part")
    names = [f"input{i}" if i else "x" for i in range(len(inputs))]
    options = (
        {"external_data": False, "verbose": False, **exporter.options}
        if exporter.options["dynamo"]
        else exporter.options
    )
    torch.onnx.export(model, inputs, str(unfinished), input_names=names, output_names=None, **options)
    os.replace(unfinished, path)


def make(folder: Path, only: str = "") -> dict[str, str]:
    """Make what is missing; the cause of each file that could not be made, by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    causes: dict[str, str] = {}
    for name, exporter, build in jobs():
        path = folder / f"{name}.{exporter.name}.onnx"
        if path.exists() or only not in path.name:
            continue
        start = time.perf_counter()
        try:
            model, inputs = build(name)
            export(model, inputs, path, exporter)
            side = "x".join(map(str, inputs[0].shape))
            print(f"{path.name}: {side}, {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s")
        except Exception as error:  # whatever a model, timm or the exporter raises is its cause
            causes[path.name] = cause_of(error)
            print(f"{path.name}: not built, {causes[path.name]}")
        sys.stdout.flush()
        model = inputs = None
        gc.collect()
    return causes


def cause_of(error: BaseException) -> str:
    """The first error of a chain: the exporter's own says only in which step it happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:200]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--only", default="", help="make only files with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    causes = make(options.folder, options.only)
    if not options.only:
        (options.folder / "not_built.json").write_text(json.dumps(causes, indent=2) + "\n", encoding="utf-8")
    built = len(list(options.folder.glob("*.onnx")))
    print(f"{built} files in {options.folder}, {len(causes)} not built")
    for name, cause in causes.items():
        print(f"  {name}: {cause}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
