"""A metric of one's own: the spherical score. A column of a table by `metrics: [nf_acc, spherical, cnn_spherical]`."""

from torch import Tensor

from nfpi.results import register_metric


@register_metric("spherical", label="Spherical score", higher_is_better=True, decimals=3)
def spherical_score(log_prob: Tensor, labels: Tensor) -> float:
    """Compute the mean over images of p(y | x) / √(Σ_k p(k | x)²), 0 to 1 (certain and right); p(k | x) ∝ p(x | k).

    Args:
        log_prob: log p(x | k) of a flow, or the log-softmax of a classifier, (N, K).
        labels: y, (N,).
    """
    probability = log_prob.softmax(1)
    return float((probability.gather(1, labels[:, None])[:, 0] / probability.norm(dim=1)).mean())
