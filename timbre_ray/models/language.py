"""GPT-2 as AudioLDM2 uses it: eight hidden states, appended one by one, are the predicted LOA."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

NUM_TOKENS = 8


def hidden_states(gpt2: GPT2LMHeadModel, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, length, dim) embeddings -> last hidden states (batch, length, dim), after the final norm."""
    return gpt2.transformer(inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False).last_hidden_state


def rollout(gpt2: GPT2LMHeadModel, condition: Tensor, attention_mask: Tensor) -> Tensor:
    """Free-running prediction with gradient, as the pipeline's ``generate_language_model`` but differentiable.

    condition: (batch, length, dim), attention_mask: (batch, length) -> LOA (batch, 8, dim).
    """
    ones = attention_mask.new_ones(len(attention_mask), 1)
    embeds, mask = condition, attention_mask
    for _ in range(NUM_TOKENS):
        embeds = torch.cat([embeds, hidden_states(gpt2, embeds, mask)[:, -1:]], dim=1)
        mask = torch.cat([mask, ones], dim=1)
    return embeds[:, -NUM_TOKENS:]


def teacher_forced(gpt2: GPT2LMHeadModel, condition: Tensor, attention_mask: Tensor, loa: Tensor) -> Tensor:
    """AudioLDM2's pretraining: every token is predicted from the true ones before it. Shapes as in ``rollout``."""
    embeds = torch.cat([condition, loa[:, :-1]], dim=1)
    mask = torch.cat([attention_mask, attention_mask.new_ones(len(loa), NUM_TOKENS - 1)], dim=1)
    return hidden_states(gpt2, embeds, mask)[:, -NUM_TOKENS:]
