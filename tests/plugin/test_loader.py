"""The loader, as TensorBoard uses it at its start."""

from __future__ import annotations

from argparse import Namespace

from tensorboard.plugins.base_plugin import TBContext

from tb_nanwatch.plugin.loader import NanWatchLoader
from tb_nanwatch.plugin.plugin import NanWatchPlugin


def test_tensorboard_keeps_every_event():
    flags = Namespace(samples_per_plugin={"images": 3})
    NanWatchLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {"images": 3, "nanwatch": 0}


def test_a_flag_of_the_user_is_kept():
    flags = Namespace(samples_per_plugin={"nanwatch": 7})
    NanWatchLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {"nanwatch": 7}


def test_without_a_data_provider_there_is_no_plugin():
    assert NanWatchLoader().load(TBContext()) is None
    assert isinstance(NanWatchLoader().load(TBContext(data_provider=object())), NanWatchPlugin)
