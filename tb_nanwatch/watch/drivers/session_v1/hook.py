"""The hook: a watch in the loop of a ``MonitoredSession``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from tb_nanwatch.watch.api import Watch


class NanWatchHook(tf.compat.v1.train.SessionRunHook):
    """Watch the runs of a ``MonitoredSession`` of TensorFlow 1.

    In each run that trains, the hook also fetches the row of the step. A bad row ends the run with
    :class:`~tb_nanwatch.NonFiniteError`, if the policy of the watch says so.

    Example:
        >>> import tempfile, tensorflow as tf, tb_nanwatch
        >>> v1 = tf.compat.v1
        >>> with tf.Graph().as_default():
        ...     x = v1.placeholder(tf.float32, [None], name="x")
        ...     weight = v1.get_variable("weight", [], initializer=v1.ones_initializer())
        ...     loss = tf.reduce_mean(tf.math.log(weight * x))
        ...     optimizer = v1.train.GradientDescentOptimizer(0.1)
        ...     watch = tb_nanwatch.Watch(tempfile.mkdtemp())
        ...     train_op = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
        ...     with v1.train.MonitoredTrainingSession(hooks=[tb_nanwatch.NanWatchHook(watch)]) as session:
        ...         session.run(train_op, {x: [1.0, 0.5]})
        ...         session.run(train_op, {x: [0.0, 0.5]})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tb_nanwatch.errors.NonFiniteError: Step 1: -Inf first appeared in the output of Log...
    """

    def __init__(self, watch: Watch) -> None:
        """Create the hook of a watch.

        Args:
            watch: a watch whose ``apply_gradients`` is called before the session is made.
        """
        self._runs = watch._session_runs
        self._feed: Any = None
        self._is_in_step = False

    def begin(self) -> None:
        """Check that there is a step to watch.

        Raises:
            SetupError: if ``watch.apply_gradients`` was not called.
        """
        self._runs.built  # noqa: B018 - raises

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Catch the errors that end runs of the session: TensorFlow calls no hook then."""
        run = session.run

        def listened(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            except tf.errors.OpError as error:
                if self._is_in_step:
                    self._is_in_step = False
                    self._runs.failed(session, error, self._feed)
                raise

        session.run = listened

    def before_run(self, run_context: Any) -> tf.compat.v1.train.SessionRunArgs | None:
        """Fetch the row of a step that trains, or the measure of a micro-batch."""
        extra = self._runs.before_run(run_context.session, run_context.original_args.fetches)
        self._is_in_step, self._feed = extra is not None, run_context.original_args.feed_dict
        return None if extra is None else tf.compat.v1.train.SessionRunArgs(*extra)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Record the row.

        Raises:
            NonFiniteError: at a bad step, if the policy says so.
        """
        self._is_in_step = False
        if run_values.results is not None:
            feed_dict = run_context.original_args.feed_dict
            self._runs.after_run(run_context.session, run_values.results, feed_dict)

    def end(self, session: Any) -> None:
        """Write the remaining steps, and check the variables after the final update.

        Raises:
            NonFiniteError: under ``"raise"`` and ``"skip"``, if the last update made a variable non-finite.
        """
        self._runs.end(session)
