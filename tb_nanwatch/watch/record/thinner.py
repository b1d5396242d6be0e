"""Thinning on disk: spans get longer as a run does, so that a log grows with the logarithm of the number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

import numpy as np

from tb_nanwatch.numerics.spans import concatenate, merge_spans
from tb_nanwatch.schema.records import Series
from tb_nanwatch.schema.stats import Merge

SPANS_A_GENERATION: Final = 2048
BYTES_A_GENERATION: Final = 64 * 1024 * 1024
FEWEST_SPANS: Final = 64


class Thinner:
    """Merges the steps of a session into the spans of its log.

    Generation 0 holds 2,048 spans of one step, generation 1 as many of two steps, then of four, and so on. Steps are
    merged and never sampled, so no peak and no first step is lost. With thousands of variables a generation holds fewer
    spans, because TensorBoard's data server returns at most 256 MiB of a tag.
    """

    def __init__(self) -> None:
        """Begin with generation 0."""
        self._generation = 0
        self._spans = 0
        self._room = 0
        self._begun: Series | None = None
        self._missing = 1

    def add(self, steps: Series) -> Iterator[tuple[int, Series]]:
        """Add single steps, and yield (generation, spans) for the spans that are now full.

        Args:
            steps: spans of length 1 that continue where the last call ended.
        """
        if not self._spans:
            self._spans = self._room = _spans_that_fit(steps)
        while len(steps):
            if self._begun is None and len(steps) >= self._length:
                used = min(len(steps) // self._length, self._room) * self._length
                yield self._complete(merge_spans(steps.rows(slice(used)), np.arange(0, used, self._length)))
            else:
                used = min(len(steps), self._missing)
                yield from self._continue(steps.rows(slice(used)))
            steps = steps.rows(slice(used, None))

    def rest(self) -> Iterator[tuple[int, Series]]:
        """Yield the span that is not full, and begin a new one: for the end of a session, or before an alert."""
        if self._begun is not None:
            yield self._generation, self._begun
            self._begun, self._missing = None, self._length

    @property
    def unfinished(self) -> tuple[int, Series] | None:
        """The generation of the span that is not full, and the span so far; ``None`` if there is none."""
        return None if self._begun is None else (self._generation, self._begun)

    @property
    def _length(self) -> int:
        return 1 << self._generation

    def _continue(self, steps: Series) -> Iterator[tuple[int, Series]]:
        # Merging is associative, so the merged steps stand for all steps of the span so far.
        merged = merge_spans(steps, [0])
        self._begun = merged if self._begun is None else merge_spans(concatenate([self._begun, merged]), [0])
        self._missing -= len(steps)
        if not self._missing:
            yield self._complete(self._begun)
            self._begun = None

    def _complete(self, spans: Series) -> tuple[int, Series]:
        generation = self._generation
        self._room -= len(spans)
        if self._room == 0:
            self._generation, self._room = self._generation + 1, self._spans
        self._missing = self._length
        return generation, spans


def _spans_that_fit(series: Series) -> int:
    bytes_a_span: int = sum(
        4 * column.shape[1] for key, column in series.columns.items() if key.keeps in get_args(Merge)
    )
    return max(FEWEST_SPANS, min(SPANS_A_GENERATION, BYTES_A_GENERATION // bytes_a_span))
