const LOOP = `watch = tb_nanwatch.Watch(LOGDIR, model.trainable_variables)

@watch.step
def train_step(x, y):
    ...
    watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)
    return loss`;

/** How to begin, where no run has been recorded yet. */
export function Empty() {
  return (
    <section class="empty" data-testid="empty" aria-label="No data">
      <h1 class="sentence">No run here has been watched yet.</h1>
      <p>
        A watched run records the norms of its gradients at every step, and says at which step and in which
        layer the first NaN or Inf appeared. In a custom training loop that takes three lines:
      </p>
      <pre>
        <code>{LOOP}</code>
      </pre>
      <p>
        Write into this TensorBoard's log directory, or a directory below it; the page finds the run by itself
        within seconds. Where there is no browser, <code>nanwatch LOGDIR</code> prints the same verdict.
      </p>
    </section>
  );
}
