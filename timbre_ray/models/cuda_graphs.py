"""CUDA graphs of the U-Net: the same kernels, launched at once.

AudioLDM2's U-Nets are some hundred small transformer blocks: launched one by one, their kernels leave a GPU idle for most of a
step. A graph is recorded at the first call and replayed at every further one of the same shapes. On the CPU nothing changes.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


def for_training(unet: nn.Module, device: str) -> Any:
    """What is called as ``unet`` is, forward and backward passes as graphs; ``unet`` itself on the CPU.

    Every call must have the shapes of the first. Autocast must not cache its casts, and the gradients must be there before the
    first backward pass (``zero_grad(set_to_none=False)``): a graph writes its gradients to the same place each time, and a
    parameter without one would take that place for its own.
    """
    return _Trained(unet) if is_cuda(device) else unet


def for_generation(unet: nn.Module, device: str) -> Any:
    """What is called as ``unet`` is, without gradients; ``unet`` itself on the CPU."""
    return _Frozen(unet) if is_cuda(device) else unet


def is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


class _Positional(nn.Module):
    """The U-Net as ``make_graphed_callables`` calls it: tensors in, a tensor out."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, loa: Tensor, t5: Tensor, mask: Tensor) -> Tensor:
        told = {"encoder_hidden_states": loa, "encoder_hidden_states_1": t5, "encoder_attention_mask_1": mask}
        return self.unet(sample, timestep, **told).sample


class _Trained:
    def __init__(self, unet: nn.Module) -> None:
        self._unet, self._graphed = unet, None

    def __call__(
        self, sample: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, encoder_hidden_states_1: Tensor,
        encoder_attention_mask_1: Tensor,
    ) -> SimpleNamespace:  # fmt: skip
        arguments = (sample, timestep, encoder_hidden_states, encoder_hidden_states_1, encoder_attention_mask_1)
        if self._graphed is None:
            # The recording's backward pass runs on a stream of its own, on purpose.
            warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
            like = tuple(value.detach().clone().requires_grad_(value.requires_grad) for value in arguments)
            self._graphed = torch.cuda.make_graphed_callables(_Positional(self._unet), like, allow_unused_input=True)
        return SimpleNamespace(sample=self._graphed(*arguments))


class _Frozen:
    """One graph a set of shapes: the last batch of clips may be smaller."""

    def __init__(self, unet: nn.Module) -> None:
        self._unet, self.dtype = unet, unet.dtype
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, sample: Tensor, timestep: Tensor, **told: Tensor) -> SimpleNamespace:
        values = [sample, timestep, *told.values()]
        shapes = tuple(value.shape for value in values)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._record(values, list(told))
        graph, inputs, output = self._graphs[shapes]
        for place, value in zip(inputs, values, strict=True):
            place.copy_(value)
        graph.replay()
        return SimpleNamespace(sample=output.clone())

    def _record(self, values: list[Tensor], names: list[str]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        inputs = [value.clone() for value in values]
        told = dict(zip(names, inputs[2:], strict=True))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their algorithms and take their workspaces outside of the recording
            self._unet(inputs[0], inputs[1], **told)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._unet(inputs[0], inputs[1], **told).sample
        return graph, inputs, output
