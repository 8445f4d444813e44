"""A metric of one's own: the Brier score. A column of a table by `metrics: [nf_acc, brier, cnn_brier]`."""

import torch.nn.functional as F
from torch import Tensor

from nfpi.results import register_metric


@register_metric("brier", label="Brier", higher_is_better=False, decimals=3)
def brier_score(log_prob: Tensor, labels: Tensor) -> float:
    """Compute the mean over images of Σ_k (p(k | x) − [k = y])², 0 (certain and right) to 2; p(k | x) ∝ p(x | k).

    Args:
        log_prob: log p(x | k) of a flow, or the log-softmax of a classifier, (N, K).
        labels: y, (N,).
    """
    probability = log_prob.softmax(1)
    return float((probability - F.one_hot(labels, log_prob.shape[1])).square().sum(1).mean())
