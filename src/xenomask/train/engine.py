"""What runs a step: one process or several (torchrun), a precision, a device; all of it through accelerate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.utils.checkpoint import checkpoint

from xenomask.errors import XenomaskError, first_line
from xenomask.models.device import check_device
from xenomask.train.config import TrainConfig
from xenomask.train.optim import parameter_groups

if TYPE_CHECKING:
    from accelerate import Accelerator

# Layers whose activations are worth forgetting, by their class' name
LAYERS = ("SwinLayer", "Mask2FormerPixelDecoderEncoderLayer", "Mask2FormerMaskedAttentionDecoderLayer")
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Engine:
    """accelerate's Accelerator in the words of the loop."""

    accelerator: "Accelerator"

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.accelerator.is_main_process

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled (fp16): then an infinite gradient is a step left out, no error."""
        return self.accelerator.scaler is not None

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def prepare(self, module: nn.Module, config: TrainConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The module as the processes run it, and its optimizer."""
        for name, parameter in module.named_parameters():
            if ".swin.layernorm." in name:  # transformers builds it and never calls it
                parameter.requires_grad_(False)
        if config.engine.checkpoint_activations:
            forget_activations(module)
        optimizer = torch.optim.AdamW(parameter_groups(module, config.optim))
        return self.accelerator.prepare(module, optimizer)

    def precision(self):
        return self.accelerator.autocast()

    def no_sync(self, module: nn.Module):
        """Inside, gradients are only gathered here, not over the processes."""
        return self.accelerator.no_sync(module)

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, module: nn.Module, most: float) -> float:
        """Clips the norm of the whole model's gradient; returns the norm before."""
        norm = self.accelerator.clip_grad_norm_(module.parameters(), most)
        assert norm is not None
        return float(norm)

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the processes."""
        if self.world == 1:
            return list(numbers)
        total = self.accelerator.reduce(torch.tensor(numbers, dtype=torch.float64, device=self.device), "sum")
        return total.tolist()  # pyright: ignore

    def sum_array(self, counts: np.ndarray) -> np.ndarray:
        if self.world == 1:
            return counts
        return self.accelerator.reduce(torch.from_numpy(counts).to(self.device), "sum").cpu().numpy()  # pyright: ignore

    def weights(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The weights, whole and on the CPU; every process takes part in gathering them."""
        return get_model_state_dict(self._own(module), options=WHOLE)  # pyright: ignore

    def state(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Optimizer and loss scale, whole and on the CPU; every process takes part in gathering them."""
        inner = getattr(optimizer, "optimizer", optimizer)
        state: dict[str, Any] = {"optimizer": get_optimizer_state_dict(self._own(module), inner, options=WHOLE)}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def _own(self, module: nn.Module) -> nn.Module:
        return self.accelerator.unwrap_model(module, keep_torch_compile=False)

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Puts optimizer and loss scale back (the weights were loaded before the module was wrapped)."""
        inner = getattr(optimizer, "optimizer", optimizer)
        names = {id(p): name for name, p in self._own(module).named_parameters() if p.requires_grad}
        own = set(names.values())
        # rates and decay are this recipe's, which may have changed; what was learnt of the gradients is the state's
        groups = [{**g, "params": [names[id(p)] for p in g["params"]]} for g in inner.param_groups]
        try:
            if differ := sorted(own ^ set(state["optimizer"]["state"])):
                raise ValueError(f"of {differ[0]} only one of them knows")
            loaded = {"state": state["optimizer"]["state"], "param_groups": groups}
            set_optimizer_state_dict(self._own(module), inner, optim_state_dict=loaded, options=WHOLE)
        except (KeyError, ValueError, RuntimeError, TypeError) as e:
            raise XenomaskError(
                f"the optimizer's state is not that of this recipe ({first_line(e)}): was the recipe changed "
                "under way? choose another work_dir with this checkpoint as init"
            ) from e
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def start_trackers(self, config: TrainConfig) -> None:
        """Opens the trackers of the recipe, as a run named like the work folder.

        Raises XenomaskError where one of them does not start.
        """
        names = config.engine.trackers
        if not names:
            return
        own = config.work_dir.resolve()
        try:
            self.accelerator.init_trackers(
                own.name,
                config.model_dump(mode="json", include={"preset", "seed"}),
                {"wandb": {"dir": str(own)}},  # not into whatever folder the command runs in
            )
        except Exception as e:  # each of them has errors of its own
            self.accelerator.trackers = []  # one that did not start cannot be ended
            hint = "; with WANDB_MODE=offline wandb needs no account" if "wandb" in names else ""
            raise XenomaskError(f"engine.trackers ({', '.join(names)}): {first_line(e)}{hint}") from e

    def track(self, numbers: Mapping[str, float], step: int) -> None:
        self.accelerator.log(dict(numbers), step=step)

    def close(self) -> None:
        """Ends trackers and forgets accelerate's global state, so that another run may choose differently."""
        from accelerate.state import AcceleratorState, GradientState

        self.accelerator.end_training()
        self.accelerator.free_memory()
        GradientState._reset_state()
        AcceleratorState._reset_state(self.world == 1)


def open_engine(config: TrainConfig, device: str) -> Engine:
    """The engine that the recipe asks for, on this device, in this process or the group that torchrun started.

    Raises XenomaskError where the batch cannot be split evenly or a precision, tracker or device is not to be had.
    """
    check_device(device)
    # accelerate would leave a missing tracker out, and compute in float32 where the CPU is asked for fp16
    for name in config.engine.trackers:
        if find_spec(name) is None:
            raise XenomaskError(f"engine.trackers: {name} is not installed: pip install {name}")
    if config.engine.precision == "fp16" and device == "cpu":
        raise XenomaskError('engine.precision = "fp16" needs a GPU: on the CPU take "bf16" or "no"')
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import FullyShardedDataParallelPlugin, TorchDynamoPlugin

    e = config.engine
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=e.precision,
            log_with=list(e.trackers) or None,  # pyright: ignore
            project_dir=config.work_dir,
            step_scheduler_with_optimizer=False,
            fsdp_plugin=FullyShardedDataParallelPlugin(
                fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=list(LAYERS)
            )
            if e.shard
            else None,
            dynamo_plugin=TorchDynamoPlugin(backend="inductor") if e.compile else None,  # pyright: ignore
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
    except (ValueError, ImportError, NotImplementedError) as error:
        raise XenomaskError(f"[engine]: {first_line(error)}") from error
    if e.shard and config.optim.ema:
        raise XenomaskError("engine.shard and optim.ema do not go together: the average is not sharded")
    share = accelerator.num_processes * config.optim.accumulate
    if config.optim.batch % share:
        raise XenomaskError(
            f"optim.batch = {config.optim.batch} cannot be dealt to {accelerator.num_processes} processes in "
            f"{config.optim.accumulate} parts: make it a multiple of {share}"
        )
    return Engine(accelerator)


def forget_activations(module: nn.Module) -> None:
    """Makes the layers compute their activations again in the backward pass instead of keeping them."""
    for layer in module.modules():
        if type(layer).__name__ in LAYERS:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        elif hasattr(layer, "set_grad_checkpointing"):  # timm's backbones
            layer.set_grad_checkpointing(True)  # pyright: ignore
