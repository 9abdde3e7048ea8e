import contextlib
import types

import torch
from torch import nn
from torch.nn import functional

from . import attention, distributed, fp8  # noqa: F401


class RMSNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-5, zero_centered_gamma=False, params_dtype=None, device=None, **ignored):
        super().__init__()
        self.eps, self.zero_centered = eps, zero_centered_gamma
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=params_dtype))

    def forward(self, x):
        return _normalized(x, "RMSNorm", self.weight, getattr(self, "bias", None), self.eps, self.zero_centered)


class LayerNorm(RMSNorm):
    def __init__(self, hidden_size, eps=1e-5, params_dtype=None, **kwargs):
        super().__init__(hidden_size, eps, params_dtype=params_dtype, **kwargs)
        self.bias = nn.Parameter(torch.zeros(hidden_size, dtype=params_dtype))

    def forward(self, x):
        return _normalized(x, "LayerNorm", self.weight, self.bias, self.eps, self.zero_centered)


def _normalized(x, kind, weight, bias, eps, zero_centered):
    gain = weight + 1 if zero_centered else weight
    if kind == "LayerNorm":
        return functional.layer_norm(x, (x.shape[-1],), gain, bias, eps)
    wide = x.float()
    return gain * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


class Linear(nn.Module):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        return_bias=False,
        params_dtype=None,
        tp_size=1,
        parallel_mode=None,
        init_method=None,
        **ignored,
    ):
        super().__init__()
        assert tp_size == 1, "the stand-in has one process"
        self.in_features, self.out_features, self.use_bias, self.return_bias = (
            in_features,
            out_features,
            bias,
            return_bias,
        )
        self.tp_size, self.parallel_mode = tp_size, parallel_mode
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype))
        if init_method is not None:
            init_method(self.weight)
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=params_dtype)) if bias else None

    def forward(self, x, is_first_microbatch=None, **ignored):
        if self.return_bias:
            return functional.linear(x, self.weight), self.bias
        return functional.linear(x, self.weight, self.bias)


class LayerNormLinear(Linear):
    def __init__(
        self,
        in_features,
        out_features,
        eps=1e-5,
        normalization="LayerNorm",
        zero_centered_gamma=False,
        params_dtype=None,
        **kwargs,
    ):
        super().__init__(in_features, out_features, params_dtype=params_dtype, **kwargs)
        self.eps, self.normalization, self.zero_centered = eps, normalization, zero_centered_gamma
        self.layer_norm_weight = nn.Parameter(torch.ones(in_features, dtype=params_dtype))
        self.layer_norm_bias = (
            nn.Parameter(torch.zeros(in_features, dtype=params_dtype)) if normalization == "LayerNorm" else None
        )

    def forward(self, x, is_first_microbatch=None, **ignored):
        return super().forward(
            _normalized(
                x, self.normalization, self.layer_norm_weight, self.layer_norm_bias, self.eps, self.zero_centered
            )
        )


class GroupedLinear(nn.Module):
    def __init__(self, *args, **kwargs):
        raise NotImplementedError("the stand-in has no experts")


class DotProductAttention(nn.Module):
    def __init__(
        self,
        num_attention_heads,
        kv_channels,
        attn_mask_type="causal",
        softmax_scale=None,
        qkv_format="sbhd",
        **ignored,
    ):
        super().__init__()
        self.attn_mask_type, self.softmax_scale, self.qkv_format = attn_mask_type, softmax_scale, qkv_format

    def forward(self, query, key, value, attention_mask=None, attn_mask_type=None, **ignored):
        kind = attn_mask_type or self.attn_mask_type
        q, k, v = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # sequence, batch, head, channel
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
        mask = None if attention_mask is None or kind == "causal" else ~attention_mask
        out = functional.scaled_dot_product_attention(
            q, k, v, mask, is_causal=mask is None and "causal" in kind, scale=self.softmax_scale
        )
        return out.permute(2, 0, 1, 3).flatten(2)


@contextlib.contextmanager
def _nothing(*args, **kwargs):
    yield


fp8_autocast = fp8_model_init = _nothing


class _Ops(types.ModuleType):
    def __getattr__(self, name):
        return nn.Module


ops = _Ops("ops")
