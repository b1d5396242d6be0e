"""The plugin: a table of routes, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.errors import PublicError
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin
from werkzeug import wrappers

from tb_nanwatch.plugin import alerts, answers, requests
from tb_nanwatch.plugin.ahead import read_ahead
from tb_nanwatch.plugin.layers import Layers
from tb_nanwatch.plugin.listing import Listing
from tb_nanwatch.reading.logdir import local_runs
from tb_nanwatch.reading.memory import give_freed_memory_back, give_large_blocks_back
from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.wire import PLUGIN_NAME

_STATIC: Final = Path(__file__).parent / "static"
_ENTRY: Final = "/index.js"
_BUILD: Final = "run `npm --prefix frontend run build`, or install the package again"
_METHODS: Final = ("GET", "HEAD")

WsgiApp = Callable[..., Any]
_Response = Any  # http_util.Respond has no types.
Answer = Callable[[wrappers.Request], _Response]


class UnavailableError(PublicError):
    """TensorBoard's data provider does not answer."""

    http_code = 503


class RunRoute(NamedTuple):
    """A route that answers about one run."""

    request: type[requests.SeriesRequest | requests.HeatmapRequest | requests.AlertRequest]
    answer: Callable[..., object]
    has_layers: bool = False


RUN_ROUTES: Final[Mapping[str, RunRoute]] = {
    "/series": RunRoute(requests.SeriesRequest, answers.series_answer, has_layers=True),
    "/heatmap": RunRoute(requests.HeatmapRequest, answers.heatmap_answer, has_layers=True),
    "/alert": RunRoute(requests.AlertRequest, alerts.alert_answer),
    "/batch": RunRoute(requests.AlertRequest, alerts.batch_answer),
}


class NanWatchPlugin(TBPlugin):
    """Serves the page and what it draws. Every route only reads."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: TBContext) -> None:
        super().__init__(context)
        spec = getattr(context.flags, "logdir_spec", None) or ""
        self._reader = RunReader(context.data_provider, files=local_runs(context.logdir or "", spec))
        self._listing = Listing(self._reader.index)
        self._layers = Layers()

    def read_ahead(self) -> Thread:
        """Read what there is before anybody asks for it; see :func:`~tb_nanwatch.plugin.ahead.read_ahead`."""
        give_large_blocks_back()
        return read_ahead(self._reader)

    def get_plugin_apps(self) -> dict[str, WsgiApp]:
        """Return the routes."""
        of_runs = {path: _app(partial(self._about_run, route)) for path, route in RUN_ROUTES.items()}
        return {_ENTRY: _app(_page), "/verdicts": _app(self._verdicts), **of_runs}

    def is_active(self) -> bool:
        """Return ``False``: TensorBoard asks only as long as it has seen no data of this plugin."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Name the tab and the page's module."""
        return FrontendMetadata(es_module_path=_ENTRY, tab_name="NaN Watch")

    def _verdicts(self, request: wrappers.Request) -> _Response:
        asked = requests.parse(requests.VerdictsRequest, request.args)
        index = self._index(request)
        if asked.run is not None:
            _require_run(index, asked.run)
        return _json(request, self._reader.verdicts(index, asked.run))

    def _about_run(self, route: RunRoute, request: wrappers.Request) -> _Response:
        asked = requests.parse(route.request, request.args)
        index = self._index(request)
        _require_run(index, asked.run)
        log, layers = self._reader.log(index, asked.run), [self._layers] if route.has_layers else []
        response = _json(request, route.answer(log, asked, *layers))
        # The C library keeps what the request's own thread has freed: 30 MB after a few pages (measured).
        give_freed_memory_back()
        return response

    def _index(self, request: wrappers.Request) -> RunIndex:
        environ = request.environ
        experiment = Experiment(plugin_util.context(environ), plugin_util.experiment_id(environ))
        try:
            return self._listing.index(experiment)
        except ProviderError as error:
            raise UnavailableError(f"Unavailable: {error}; ask again.") from error


def _app(answer: Answer) -> WsgiApp:
    def application(request: wrappers.Request) -> _Response:
        if request.method in _METHODS:
            return answer(request)
        allowed = ", ".join(_METHODS)
        sentence = f"the method must be one of {allowed}; got another."
        return http_util.Respond(request, sentence, "text/plain", code=405, headers=[("Allow", allowed)])

    return wrappers.Request.application(application)


def _page(request: wrappers.Request) -> _Response:
    try:
        script = (_STATIC / "index.js").read_bytes()
    except FileNotFoundError:
        raise requests.not_found(f"the page was not built; {_BUILD}") from None
    return http_util.Respond(request, script, "text/javascript")


def _require_run(index: RunIndex, run: str) -> None:
    if run not in index.names:
        raise requests.not_found("the run must be one of those that `verdicts` lists")


def _json(request: wrappers.Request, answer: object) -> _Response:
    # A directory may have a name that is no text; its stray bytes are spelled as JSON escapes.
    return http_util.Respond(request, dumps(answer).encode("utf-8", "backslashreplace"), "application/json")
