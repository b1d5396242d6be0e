"""The log of a critic that diverged, as its training process would have left it, for tests that must not train."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Variable
from tests.event_files import RunWriter, steps_of

LAYERS = ("l3", "l3_1", "l3_2", "l3_3", "l4")
BAD_STEP = 411
NAMES = [(f"{layer}/{part}", layer) for layer in LAYERS for part in ("V", "g", "b")]
CRITIC = Header(
    session=0,
    variables=tuple(
        Variable(name, layer, (64,), "float32", backward_order=len(NAMES) - 1 - place)
        for place, (name, layer) in enumerate(NAMES)
    ),
    stats=("grad_norm", "clipped_norm", "clip_ratio", "weight_norm", "loss", "global_norm"),
    clip="scale",
)


def write_critic(directory: Path) -> None:
    """Write a run whose gradients explode from step 371 on, until one of them is Inf at step 411."""
    steps, width = np.arange(BAD_STEP + 1), len(CRITIC.variables)
    growth = 10.0 ** (np.clip((steps - 371) / 40, 0, 1) * 9)
    noise = np.random.default_rng(0).lognormal(0, 0.2, (len(steps), width))
    norms = growth[:, None] * noise * np.linspace(0.1, 2, width)
    global_norm = np.linalg.norm(norms, axis=1)
    ratio = np.minimum(1, 15 / global_norm)[:, None] * np.ones(width)
    norms[BAD_STEP, :3] = np.nan
    norms[BAD_STEP, 3] = np.inf
    global_norm[BAD_STEP] = np.inf
    measured = {
        "grad_norm": norms,
        "clipped_norm": norms * ratio,
        "clip_ratio": ratio,
        "loss": growth / 10,
        "global_norm": global_norm,
    }
    before = {stat: values[:-1] for stat, values in measured.items()}
    window = {stat: values[-64:] for stat, values in measured.items()}
    nan_from_it = [Finding("gradient", v.name, Counts(64, 64, 0, 0)) for v in CRITIC.variables[:3]]
    alert = Alert(
        step=BAD_STEP,
        session=0,
        first_step=0,
        action="raised",
        findings=(Finding("gradient", "l3_1/V", Counts(64, 0, 3, 0)), *nan_from_it),
        window=steps_of(BAD_STEP - 63, BAD_STEP, header=CRITIC, **window),
    )
    writer = RunWriter(directory / "nanwatch").header(CRITIC)
    writer.spans(steps_of(0, BAD_STEP - 1, header=CRITIC, **before)).alert(alert)
