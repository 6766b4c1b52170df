"""Tissue classes of the synthetic CTs and the Hounsfield units that they can have.

Gives `TISSUES` (the meaning of every number in a uint8 tissue map), `ORGAN_OF_TISSUE` (which of the nine
organs a class always belongs to) and `draw_hu_table` (one plausible set of HU values, for one contrast
phase). A tissue map says what a voxel is made of; a label map says which organ it counts as. They differ:
gas lies in bowel (no organ) and in the esophagus (organ), a lung vessel belongs to one lung or the other,
and so labels are always a separate array. HU ranges are textbook values for 100-140 kV CT, widened so that
unusual scanners and patients are covered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TISSUES: tuple[str, ...] = (
    "outside air",
    "left lung",
    "right lung",
    "spinal cord",
    "esophagus",
    "liver",
    "left kidney",
    "right kidney",
    "aorta",
    "trachea",
    "fat",
    "muscle",
    "cortical bone",
    "venous blood",
    "gas",
    "lung vessel",
    "spleen",
    "bowel content",
    "soft tissue",
    "fluid",
    "spongy bone",
    "disc",
    "cerebrospinal fluid",
    "skin",
    "mass",
    "renal medulla",
    "renal pelvis",
    "hepatic vessel",
    "collapsed lung",
    "arterial blood",
    "myocardium",
)
"""Index = class number. 1..9 are the nine organs in their fixed order (parenchyma, or lumen for tubes)."""

TISSUE_INDEX: dict[str, int] = {name: index for index, name in enumerate(TISSUES)}

ORGAN_COUNT = 9

_FIXED_ORGANS = {"cerebrospinal fluid": "spinal cord", "hepatic vessel": "liver"}


def _organ_of_tissue() -> np.ndarray:
    table = np.zeros(len(TISSUES), np.uint8)
    table[1 : ORGAN_COUNT + 1] = np.arange(1, ORGAN_COUNT + 1)
    for tissue, organ in _FIXED_ORGANS.items():
        table[TISSUE_INDEX[tissue]] = TISSUE_INDEX[organ]
    table.setflags(write=False)
    return table


ORGAN_OF_TISSUE: np.ndarray = _organ_of_tissue()
"""(len(TISSUES),) uint8: label 0..9 that a class always has; 0 where it has none or where position decides
(lung vessel, collapsed lung, renal medulla, gas, mass, calcified wall)."""

PHASES: tuple[tuple[str, float], ...] = (("none", 0.35), ("venous", 0.40), ("arterial", 0.25))
"""Contrast phases and how often each is drawn."""


@dataclass(frozen=True)
class HuTableInfo:
    """What belongs to one drawn HU table.

    phase: "none", "venous" or "arterial". enhancement: parenchymal enhancement 0..1 (0 without contrast).
    texture_sd_hu: (len(TISSUES),) float32, standard deviation inside each tissue before scanner noise, HU.
    """

    phase: str
    enhancement: float
    texture_sd_hu: np.ndarray


def draw_hu_table(rng: np.random.Generator, phase: str | None = None) -> tuple[np.ndarray, HuTableInfo]:
    """Draw the mean HU of every tissue class for one patient and one contrast phase.

    phase: one of `PHASES`' names, or None to draw it. Returns (hu (len(TISSUES),) float32, `HuTableInfo`).
    """
    uniform = rng.uniform
    if phase is None:
        phase = str(rng.choice([name for name, _ in PHASES], p=[share for _, share in PHASES]))
    venous, arterial, enhancement = _blood_hu(rng, phase)
    muscle = uniform(38, 68) + 10 * enhancement
    fluid = uniform(-5, 22)
    lung = uniform(-915, -700)
    # Cortex, spleen and myocardium enhance with the first arterial blood, before liver and medulla do.
    cortex = {"none": 0.0, "venous": uniform(90, 190), "arterial": uniform(40, 225)}[phase]
    early = uniform(0, 60) if phase == "arterial" else 0.0
    kidney = uniform(24, 40) + cortex
    medulla_share = {"none": 1.0, "venous": uniform(0.65, 1.05), "arterial": uniform(0.15, 0.7)}[phase]
    steatosis = rng.random() < 0.15
    liver = (uniform(0, 42) if steatosis else uniform(48, 68)) + enhancement * uniform(30, 75)
    hu_of = {
        "outside air": -1000.0,
        "left lung": lung + uniform(-12, 12),
        "right lung": lung + uniform(-12, 12),
        "spinal cord": uniform(28, 50),
        "esophagus": uniform(28, 55) + 25 * enhancement,
        "liver": liver,
        "left kidney": kidney + uniform(-6, 6),
        "right kidney": kidney + uniform(-6, 6),
        "aorta": arterial,
        "trachea": uniform(-1000, -940),
        "fat": uniform(-118, -85),
        "muscle": muscle,
        "cortical bone": uniform(420, 950),
        "venous blood": venous,
        "gas": uniform(-1000, -880),
        "lung vessel": uniform(-420, 30) + 40 * enhancement,
        "spleen": uniform(40, 56) + enhancement * uniform(40, 90) + early,
        "bowel content": _bowel_content_hu(rng),
        "soft tissue": uniform(28, 58) + enhancement * uniform(10, 60),
        "fluid": fluid,
        "spongy bone": uniform(90, 300),
        "disc": uniform(60, 115),
        "cerebrospinal fluid": uniform(5, 32),
        "skin": uniform(-20, 55),
        "mass": uniform(22, 55) + enhancement * uniform(0, 50),
        "renal medulla": 30 + (kidney - 30) * medulla_share,
        "renal pelvis": uniform(300, 900) if phase == "venous" and rng.random() < 0.12 else uniform(-5, 25),
        "hepatic vessel": (venous + liver) / 2 if phase == "arterial" else venous + uniform(-12, 12),
        "collapsed lung": uniform(20, 50) + enhancement * uniform(20, 70),
        "arterial blood": arterial * uniform(0.93, 1.03),
        "myocardium": uniform(38, 55) + enhancement * uniform(30, 75) + 0.6 * early,
    }
    hu = np.array([hu_of[name] for name in TISSUES], np.float32)
    return hu, HuTableInfo(phase, float(enhancement), _texture_sd_hu(rng))


def _blood_hu(rng: np.random.Generator, phase: str) -> tuple[float, float, float]:
    """(venous HU, arterial HU, parenchymal enhancement 0..1) for a phase."""
    uniform = rng.uniform
    if phase == "none":
        blood = uniform(30, 56)
        return blood, blood + uniform(-3, 3), 0.0
    if phase == "venous":
        blood = uniform(105, 195)
        return blood * uniform(0.92, 1.08), blood, uniform(0.7, 1.0)
    if phase == "arterial":
        return uniform(50, 330), uniform(190, 430), uniform(0.1, 0.7)
    raise ValueError(f"phase {phase!r}: expected one of {[name for name, _ in PHASES]}")


def _bowel_content_hu(rng: np.random.Generator) -> float:
    """Water-like content, stool, or (one time in five) positive oral contrast."""
    return float(rng.uniform(120, 480)) if rng.random() < 0.2 else float(rng.uniform(0, 65))


def _texture_sd_hu(rng: np.random.Generator) -> np.ndarray:
    sd = rng.uniform(2, 9, len(TISSUES)).astype(np.float32)
    for name, low, high in (
        ("outside air", 1, 4),
        ("left lung", 12, 60),
        ("fat", 4, 14),
        ("muscle", 6, 20),
        ("cortical bone", 60, 160),
        ("spongy bone", 15, 50),
        ("gas", 5, 25),
        ("trachea", 3, 12),
        ("lung vessel", 60, 130),
        ("bowel content", 5, 45),
        ("soft tissue", 6, 25),
        ("mass", 4, 20),
        ("collapsed lung", 8, 60),
    ):
        sd[TISSUE_INDEX[name]] = rng.uniform(low, high)
    sd[TISSUE_INDEX["right lung"]] = sd[TISSUE_INDEX["left lung"]]
    return sd
