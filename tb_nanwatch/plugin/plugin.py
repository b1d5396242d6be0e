"""The plugin: its table of routes, and the code that the routes share."""

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
from tb_nanwatch.plugin.listing import Listing
from tb_nanwatch.reading.grouping import LayerCache
from tb_nanwatch.reading.logdir import local_runs
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
    """Serves the page and its data. Every route only reads."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: TBContext) -> None:
        super().__init__(context)
        spec = getattr(context.flags, "logdir_spec", None) or ""
        self._reader = RunReader(context.data_provider, files=local_runs(context.logdir or "", spec))
        self._listing = Listing(self._reader.index)
        self._layers = LayerCache()

    def read_ahead(self) -> Thread:
        """Read existing runs before the first request; see :func:`~tb_nanwatch.plugin.ahead.read_ahead`."""
        return read_ahead(self._reader)

    def get_plugin_apps(self) -> dict[str, WsgiApp]:
        """Return the routes."""
        run_apps = {path: _app(partial(self._about_run, route)) for path, route in RUN_ROUTES.items()}
        return {_ENTRY: _app(_page), "/verdicts": _app(self._verdicts), **run_apps}

    def is_active(self) -> bool:
        """Return ``False``: TensorBoard calls this only as long as it has found no data of this plugin."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Return the name of the tab and the module of the page."""
        return FrontendMetadata(es_module_path=_ENTRY, tab_name="NaN Watch")

    def _verdicts(self, request: wrappers.Request) -> _Response:
        query = requests.parse(requests.VerdictsRequest, request.args)
        index = self._index(request)
        if query.run is not None:
            _require_run(index, query.run)
        return _json(request, self._reader.verdicts(index, query.run))

    def _about_run(self, route: RunRoute, request: wrappers.Request) -> _Response:
        query = requests.parse(route.request, request.args)
        index = self._index(request)
        _require_run(index, query.run)
        log, layers = self._reader.log(index, query.run), [self._layers] if route.has_layers else []
        return _json(request, route.answer(log, query, *layers))

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
    # The name of a directory may hold bytes outside UTF-8. They become escape sequences in the JSON.
    return http_util.Respond(request, dumps(answer).encode("utf-8", "backslashreplace"), "application/json")
