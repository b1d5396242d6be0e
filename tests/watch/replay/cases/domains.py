"""Functions with inputs that they are not defined for, or with results that float32 cannot hold."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.watch.replay.case import FORWARD_OR_LOSS, origin
from tests.watch.replay.training import train


# |v|^2 / (|v| * |v|) comes out above 1 by rounding; here by a length that was rounded to 3 digits.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Acos", line="angle of a cosine above 1")
def arc_cosine_beyond_one(logdir):
    def angle(weight, cosines):
        return tf.reduce_mean(weight * tf.acos(cosines))  # origin: angle of a cosine above 1

    train(logdir, angle, [[0.5, 1.0], [0.5, 1.001]])


@origin(step=2, phase=FORWARD_OR_LOSS, layer="gamma", op="Pow", line="power of a negative")
def power_of_a_negative_base(logdir):
    def corrected(gamma, pixels):
        return tf.reduce_mean((pixels - 0.1) ** gamma)  # origin: power of a negative

    train(logdir, corrected, [[0.5, 0.2], [0.9, 0.1001], [0.5, 0.0]], weight=0.45, name="gamma/exponent")


# 40 in log10 is 10 ** 40, beyond float32.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Pow", line="ten to the 40")
def decibels_to_power(logdir):
    def power(weight, decibels):
        watts = 10.0 ** (decibels / 10.0)  # origin: ten to the 40
        return tf.reduce_sum(weight * watts)

    train(logdir, power, [[0.0, 30.0], [0.0, 400.0]])


@origin(step=1, phase=FORWARD_OR_LOSS, op="Cumprod", line="a product that grows")
def cumulative_product_that_overflows(logdir):
    def value(weight, rewards):
        discounted = tf.math.cumprod(rewards)  # origin: a product that grows
        return tf.reduce_mean(weight * discounted)

    train(logdir, value, [[2.0, 0.5, 2.0, 2.0], [1e20, 1e10, 1e10, 1.0]])


# 0 * log(0 / q) is 0 * -Inf.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of 0 / q")
def divergence_from_a_one_hot_target(logdir):
    def divergence(logits, p):
        q = tf.nn.softmax(logits)
        ratios = tf.math.log(p / q)  # origin: log of 0 / q
        return tf.reduce_sum(p * ratios)

    train(logdir, divergence, [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]], weight=[0.1, 0.2, 0.3], name="student/logits")


@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="cosine of a zero vector", samples=(1,))
def cosine_similarity_of_a_zero_vector(logdir):
    def dissimilarity(anchor, vectors):
        products = tf.linalg.matvec(vectors, anchor)
        lengths = tf.norm(vectors, axis=1) * tf.norm(anchor)
        return 1.0 - tf.reduce_mean(products / lengths)  # origin: cosine of a zero vector

    batches = [[[1.0, 0.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]
    train(logdir, dissimilarity, batches, weight=[1.0, 1.0], name="anchor/vector")


# No sample of the last batch is positive, and the mean of nothing is 0 / 0. It is half of the loss.
@origin(step=2, phase=FORWARD_OR_LOSS, op="Mean", line="mean of no positives")
def mean_of_an_empty_selection(logdir):
    def contrast(weight, scores):
        positives = tf.boolean_mask(scores, scores > 0) * weight
        negatives = tf.boolean_mask(scores, scores <= 0) * weight
        attraction = tf.reduce_mean(positives)  # origin: mean of no positives
        return tf.reduce_mean(negatives) - attraction

    train(logdir, contrast, [[1.0, -1.0], [2.0, -3.0], [-1.0, -2.0]])


# No pivot may be 0: x1 = (b1 - ...) / 0. Where tf.linalg.inv and tf.linalg.cholesky raise, this does not.
@origin(step=1, phase=FORWARD_OR_LOSS, layer="target", op="MatrixTriangularSolve", line="a triangular matrix with a 0")
def triangular_solve_of_a_singular_matrix(logdir):
    def residual(target, triangle):
        solution = tf.linalg.triangular_solve(triangle, target)  # origin: a triangular matrix with a 0
        return tf.reduce_sum(solution**2)

    batches = [[[1.0, 0.0], [2.0, 1.0]], [[1.0, 0.0], [2.0, 0.0]]]
    train(logdir, residual, batches, weight=[[1.0], [3.0]], name="target/values")


# Annealed by 0.25 in each step, the temperature is 0 in step 4.
@origin(step=4, phase=FORWARD_OR_LOSS, layer="policy", op="RealDiv", line="a temperature of 0")
def temperature_that_is_annealed_to_zero(logdir):
    def entropy(logits, temperature):
        cooled = logits / temperature  # origin: a temperature of 0
        log_probabilities = tf.nn.log_softmax(cooled)
        return tf.reduce_sum(tf.exp(log_probabilities) * log_probabilities)

    train(logdir, entropy, 1.0 - 0.25 * np.arange(6, dtype="float32"), weight=[0.1, -0.2, 0.3], name="policy/logits")


# Two points are the same, so two rows of the covariance are: without jitter it is not positive definite.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Cholesky", line="a covariance that is singular")
def cholesky_of_a_singular_covariance(logdir):
    def likelihood(scale, points):
        covariance = scale * tf.exp(-((points[:, None] - points[None]) ** 2))
        factor = tf.linalg.cholesky(covariance)  # origin: a covariance that is singular
        return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)))

    train(logdir, likelihood, [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]], name="kernel/scale")


# Three frames cannot hold 1 1 2, which needs a blank between the two 1s. The gradient is 0 and so finite.
@origin(step=1, phase=FORWARD_OR_LOSS, op={"CTCLoss", "CTCLossV2"}, line="labels that are too long")
def connectionist_loss_of_labels_that_do_not_fit(logdir):
    def loss_of(logits, labels):
        sparse = tf.sparse.from_dense(labels)
        frames = tf.fill((2,), 3)
        losses = tf.nn.ctc_loss(sparse, logits, None, frames, blank_index=0)  # origin: labels that are too long
        return tf.reduce_mean(losses)

    logits = np.random.default_rng(1).normal(size=(3, 2, 4))
    train(logdir, loss_of, [[[1, 2, 3], [1, 2, 0]], [[1, 2, 0], [1, 1, 2]]], weight=logits, name="listener/logits")
