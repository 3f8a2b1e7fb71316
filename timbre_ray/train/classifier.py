"""Trains the instrument classifier of the paper's section 4.1: binary cross-entropy, one sigmoid a class."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from timbre_ray.classifier_specs import ClassifierSpec
from timbre_ray.evaluate.classification import mean_average_precision
from timbre_ray.models.classifier import InstrumentClassifier
from timbre_ray.train.classifier_examples import Examples, balanced_weights

Row = dict[str, float]


def train_classifier(
    classes: tuple[str, ...], train: Examples, valid: Examples, spec: ClassifierSpec, *, device: str = "cpu",
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> tuple[InstrumentClassifier, list[Row]]:  # fmt: skip
    """-> the classifier after the epoch with the best validation mean average precision (the first of equals), and the log."""
    weights = balanced_weights(train.labels) if spec.class_weights else torch.ones(len(train))
    log: list[Row] = []
    best, best_state = -1.0, {}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # the caller's random numbers are not ours
        torch.manual_seed(spec.seed)
        embed_dim = train.cache.shape[1]
        model = InstrumentClassifier(classes=classes, embed_dim=embed_dim, hidden_dim=spec.hidden_dim, dropout=spec.dropout)
        model.to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr)
        for epoch in range(spec.epochs):
            model.train()
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1_000_003 * spec.seed + epoch))
            total = 0.0
            for rows in order.split(spec.batch_size):
                logits = model(train.features(rows).to(device))
                loss = weighted_bce(logits, train.labels[rows].to(device), weights[rows].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            log.append({"epoch": epoch + 1, "loss": total / len(train), **_validation(model, valid, device)})
            on_epoch(log[-1])
            if log[-1]["valid_map"] > best:
                best, best_state = log[-1]["valid_map"], copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return model.eval(), log


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """logits, labels: (batch, num_classes); weights: (batch,) -> mean over the batch and the classes."""
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    return (weights * losses).mean()


@torch.no_grad()
def confidences(model: InstrumentClassifier, examples: Examples, device: str = "cpu", batch_size: int = 256) -> Tensor:
    """-> (num_examples, num_classes) in [0, 1], on the CPU."""
    rows = torch.arange(len(examples)).split(batch_size)
    return torch.cat([model.eval().confidences(examples.features(r).to(device)).cpu() for r in rows])


def _validation(model: InstrumentClassifier, valid: Examples, device: str) -> Row:
    """Loss (unweighted), mean average precision, and accuracy on what has one label."""
    found = confidences(model, valid, device)
    single = valid.labels.sum(1) == 1
    right = found[single].argmax(1) == valid.labels[single].argmax(1)
    return {
        "valid_loss": float(F.binary_cross_entropy(found, valid.labels)),
        "valid_map": mean_average_precision(valid.labels.numpy(), found.numpy()),
        "valid_accuracy": float(right.double().mean()),
    }
