"""A log directory as TensorBoard follows it, through a provider that notes the questions."""

from __future__ import annotations

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment
from tests.event_files import RunWriter

EXPERIMENT = Experiment(RequestContext(), "")


class CountingProvider(MultiplexerDataProvider):
    """TensorBoard's provider, which notes the questions, and fails on chosen tags.

    Attributes:
        asked: the run and the tag of each that was read.
        calls: how often something was read.
        lists: how often what there is was listed.
        lists_before_reads: how often it had been, each time something was read.
        failing: by tag, or ``list``, what to raise.
        before_list: what happens just before the list of that number, from 1 on.
    """

    def __init__(self, multiplexer):
        super().__init__(multiplexer, "logdir")
        self.asked = []
        self.calls = 0
        self.lists = 0
        self.lists_before_reads = []
        self.failing = {}
        self.before_list = {}

    def list_tensors(self, *args, **kwargs):
        self.lists += 1
        self.before_list.get(self.lists, lambda: None)()
        if "list" in self.failing:
            raise self.failing["list"]
        return super().list_tensors(*args, **kwargs)

    def read_tensors(self, *args, run_tag_filter=None, **kwargs):
        self.asked += [(run, tag) for run in run_tag_filter.runs for tag in run_tag_filter.tags]
        self.calls += 1
        self.lists_before_reads.append(self.lists)
        for tag in run_tag_filter.tags:
            if tag in self.failing:
                raise self.failing[tag]
        return super().read_tensors(*args, run_tag_filter=run_tag_filter, **kwargs)


class FollowedLog:
    """A logdir, the multiplexer that follows it, and a reader."""

    def __init__(self, path):
        self.path = path
        self.multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
        self.provider = CountingProvider(self.multiplexer)
        self.reader = RunReader(self.provider)

    def writer(self, run="relu"):
        return RunWriter(self.path / run / "nanwatch")

    def reload(self):
        self.multiplexer.AddRunsFromDirectory(str(self.path))
        self.multiplexer.Reload()

    def verdict(self, run="relu"):
        self.reload()
        return self.reader.verdict(self.reader.index(EXPERIMENT), run)
