"""The loader that TensorBoard imports at its start. It does little, because TensorBoard does not start if it fails."""

from __future__ import annotations

from argparse import Namespace

from tensorboard.plugins.base_plugin import TBContext, TBLoader, TBPlugin


class NanWatchLoader(TBLoader):
    """Loads the plugin and makes TensorBoard keep all of its data."""

    def fix_flags(self, flags: Namespace) -> None:
        """Keep every event of the plugin, unless the user sets ``--samples_per_plugin`` for it.

        By default TensorBoard keeps a random sample, which may miss the first NaN.
        """
        flags.samples_per_plugin.setdefault("nanwatch", 0)

    def load(self, context: TBContext) -> TBPlugin | None:
        """Return the plugin; ``None`` if TensorBoard has no data provider."""
        if context.data_provider is None:
            return None
        from tb_nanwatch.plugin.plugin import NanWatchPlugin  # noqa: PLC0415 - only a started server needs it

        plugin = NanWatchPlugin(context)
        plugin.read_ahead()
        return plugin
