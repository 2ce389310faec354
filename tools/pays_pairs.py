"""The pairs of `study_pays.py`, in the order in which they are run: what each network is, and how the two differ."""

from dataclasses import dataclass, replace

from train_pays_models import Spec

MNIST, FASHION, CIFAR = "mnist", "fashion-mnist", "cifar10"
UNSKEWED = ("disjoint", "augmentation", "architecture")


@dataclass(frozen=True)
class Pair:
    """A base and a donor.

    Attributes:
        name: unique.
        family: of the base: "MLP", "CNN", "ResNet" or "ViT".
        kind: how the two differ: "disjoint" training images, "augmentation", "architecture", "skewed" classes, or
            "fine-tunes" of one ancestor.
    """

    name: str
    family: str
    kind: str
    base: Spec
    donor: Spec

    def tiny(self) -> "Pair":
        """The same on the digits."""
        return replace(self, base=self.base.tiny(), donor=self.donor.tiny())

    def seeded(self, seed: int) -> "Pair":
        return replace(self, base=self.base.seeded(seed), donor=self.donor.seeded(seed))

    @property
    def is_unskewed(self) -> bool:
        return self.kind in UNSKEWED


def mlp(data: str, size: int, *widths: int, activation: str = "relu", images: int = 600) -> Spec:
    return Spec(data, size, "mlp", widths, images, 40, activation=activation)


def resnet(*widths: int, images: int = 1500, epochs: int = 24) -> Spec:
    return Spec(CIFAR, 24, "resnet", widths, images, epochs, augmented="flip", rate=3e-3)


def vit(*widths: int, images: int = 1500, epochs: int = 24) -> Spec:
    return Spec(FASHION, 28, "vit", widths, images, epochs)


def disjoint(name: str, family: str, base: Spec, donor: Spec) -> Pair:
    return Pair(name, family, "disjoint", base, replace(donor, part="b"))


def augmented(name: str, family: str, base: Spec, own: str, other: str) -> Pair:
    return Pair(name, family, "augmentation", replace(base, augmented=own), replace(base, augmented=other))


def skewed(name: str, family: str, base: Spec) -> Pair:
    return Pair(name, family, "skewed", replace(base, part="skew-a"), replace(base, part="skew-b"))


def fine_tuned(name: str, family: str, base: Spec, *, is_skewed: bool = False) -> Pair:
    """Both trained on, from a network of a third part, for half as long."""
    ancestor, epochs = replace(base, part="c"), base.epochs // 2
    parts = ("skew-a", "skew-b") if is_skewed else ("a", "b")
    sides = [replace(base, part=part, ancestor=ancestor, epochs=epochs, rate=base.rate / 2) for part in parts]
    return Pair(name, family, "fine-tunes", *sides)


SMALL = mlp(FASHION, 14, 128, 128)
DIGIT = mlp(MNIST, 28, 256, 256, images=300)
CONVOLUTIONS = Spec(CIFAR, 24, "cnn", (16, 32, 64), 1500, 24, augmented="flip", rate=3e-3)
RESIDUAL = resnet(16, 32, 64)
WIDE = resnet(32, 64, 128, epochs=12)
VISION = vit(48, 48, 48)

MLPS = (
    disjoint("fashion14 128-128 relu", "MLP", SMALL, SMALL),
    disjoint("mnist28 256-256 relu", "MLP", DIGIT, DIGIT),
    disjoint(
        "fashion14 128-128 gelu <- 64-64",
        "MLP",
        replace(SMALL, activation="gelu"),
        mlp(FASHION, 14, 64, 64, activation="gelu"),
    ),
    disjoint(
        "mnist14 64-64 tanh <- 128-128",
        "MLP",
        mlp(MNIST, 14, 64, 64, activation="tanh", images=300),
        mlp(MNIST, 14, 128, 128, activation="tanh", images=300),
    ),
    disjoint(
        "fashion28 256-128 hardswish <- 256-128-64",
        "MLP",
        mlp(FASHION, 28, 256, 128, activation="hardswish"),
        mlp(FASHION, 28, 256, 128, 64, activation="hardswish"),
    ),
    disjoint(
        "mnist14 128-128-128 gelu <- relu 128",
        "MLP",
        mlp(MNIST, 14, 128, 128, 128, activation="gelu", images=300),
        mlp(MNIST, 14, 128, images=300),
    ),
    augmented("fashion14 128-128 erase <- contrast", "MLP", replace(SMALL, images=300), "erase", "contrast"),
    augmented("mnist28 256-256 erase <- shift", "MLP", DIGIT, "erase", "shift"),
    Pair(
        "fashion14 MLP 128-128 <- CNN 16-32",
        "MLP",
        "architecture",
        SMALL,
        Spec(FASHION, 14, "cnn", (16, 32), 600, 40, part="b", rate=4e-3),
    ),
    Pair(
        "fashion28 MLP 256-128 <- ViT 48x3",
        "MLP",
        "architecture",
        mlp(FASHION, 28, 256, 128),
        replace(VISION, part="b"),
    ),
    skewed("fashion14 128-128 relu, skewed", "MLP", SMALL),
    skewed("mnist28 256-256 relu, skewed", "MLP", DIGIT),
    fine_tuned("fashion14 128-128 relu, fine-tuned", "MLP", SMALL),
    fine_tuned("mnist28 256-256 relu, fine-tuned on skewed", "MLP", DIGIT, is_skewed=True),
)
OTHERS = (
    disjoint("cifar CNN 16-32-64", "CNN", CONVOLUTIONS, CONVOLUTIONS),
    disjoint("fashion28 ViT 48x3", "ViT", VISION, VISION),
    disjoint("cifar ResNet 16-32-64", "ResNet", RESIDUAL, RESIDUAL),
    disjoint("fashion28 ViT 64x4 <- 48x3", "ViT", vit(64, 64, 64, 64), VISION),
    Pair("cifar CNN 16-32-64 <- ResNet 16-32-64", "CNN", "architecture", CONVOLUTIONS, replace(RESIDUAL, part="b")),
    Pair(
        "fashion14 CNN 16-32 <- MLP 128-128",
        "CNN",
        "architecture",
        Spec(FASHION, 14, "cnn", (16, 32), 600, 40, rate=4e-3),
        replace(SMALL, part="b"),
    ),
    augmented("fashion28 ViT 48x3 noise <- erase", "ViT", VISION, "noise", "erase"),
    augmented("cifar CNN 16-32-64 flip <- erase+shift", "CNN", CONVOLUTIONS, "flip", "erase+shift"),
    skewed("fashion28 ViT 48x3, skewed", "ViT", VISION),
    skewed("cifar ResNet 16-32-64, skewed", "ResNet", RESIDUAL),
    disjoint("cifar ResNet 16-32-64 <- 20-40-80", "ResNet", RESIDUAL, resnet(20, 40, 80)),
    fine_tuned("cifar CNN 16-32-64, fine-tuned", "CNN", CONVOLUTIONS),
    augmented("cifar ResNet 16-32-64 flip <- flip+contrast", "ResNet", RESIDUAL, "flip", "flip+contrast"),
    augmented("cifar CNN 16-32-64 flip <- flip+contrast", "CNN", CONVOLUTIONS, "flip", "flip+contrast"),
    disjoint("cifar ResNet 32-64-128", "ResNet", WIDE, WIDE),
)
PAIRS = (*MLPS, *OTHERS)
