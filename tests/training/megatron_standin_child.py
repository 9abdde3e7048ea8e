"""The process of the conversion without CUDA. It uses the stand-in for transformer-engine, and replaces every `cuda` by
`cpu`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).parent / "standin"))

import torch
from torch.overrides import TorchFunctionMode


def on_cpu(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


class CudaIsCpu(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.cuda:
            return args[0]
        return function(*map(on_cpu, args), **{name: on_cpu(value) for name, value in (kwargs or {}).items()})


def main() -> None:
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.set_device = lambda device: None
    torch.cuda.get_rng_state = lambda device=None: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, device=None: None
    torch.cuda.synchronize = torch.cuda.empty_cache = lambda *args: None
    torch.nn.Module.cuda = lambda self, device=None: self
    with CudaIsCpu():
        import swift.megatron.utils.megatron_lm_utils as lm
        from swift.utils import init_process_group

        lm.set_device = lambda *args: None
        lm.init_process_group = lambda backend, timeout: init_process_group("gloo", timeout)
        if os.environ.get("TAMPER"):
            from swift.megatron import convert

            real = convert.save_mcore_checkpoint

            def tampered(args: Any, models: Any, **kwargs: Any) -> Any:
                weight = next(
                    weight
                    for name, weight in models[0].named_parameters()
                    if name.endswith("linear_fc2.weight") and "visual" not in name
                )
                with torch.no_grad():
                    weight.mul_(-3)
                return real(args, models, **kwargs)

            convert.save_mcore_checkpoint = tampered
        from vasevqa.training.swift import megatron_worker

        megatron_worker.main()


if __name__ == "__main__":
    main()
