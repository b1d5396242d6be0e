"""What TensorBoard loads as it starts. TensorBoard does not start if this fails: it does next to nothing."""

from __future__ import annotations

from argparse import Namespace

from tensorboard.plugins.base_plugin import TBContext, TBLoader, TBPlugin


class NanWatchLoader(TBLoader):
    """Loads the plugin, and has TensorBoard keep all of its data."""

    def fix_flags(self, flags: Namespace) -> None:
        """Ask for every event, since TensorBoard keeps a random sample by default.

        The first NaN would not be in it. What the user asks for with ``--samples_per_plugin`` stands.
        """
        flags.samples_per_plugin.setdefault("nanwatch", 0)

    def load(self, context: TBContext) -> TBPlugin | None:
        """Return the plugin, or ``None`` where TensorBoard was started without a data provider."""
        if context.data_provider is None:
            return None
        from tb_nanwatch.plugin.plugin import NanWatchPlugin  # noqa: PLC0415 - only a started server needs it

        plugin = NanWatchPlugin(context)
        plugin.read_ahead()
        return plugin
