"""Published weights: loaded once per process, safetensors only, no foreign code, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srgpt.errors import InputError, SrgptError
from srgpt.params import WeightsParams
from srgpt.perception.pixels import SQUEEZED, Squeeze

if TYPE_CHECKING:
    import torch

Task = Literal[
    "ZeroShotImageClassification",
    "ImageTextToText",
    "ZeroShotObjectDetection",
    "MaskGeneration",
    "DepthEstimation",
]
"""What a model is loaded for: the end of the name of a transformers auto class."""

_SHOWN = 3
"""Weights that an error names."""


@dataclass(frozen=True)
class Loaded:
    """A model, its processor, and where they work."""

    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype
    name: str
    """The source that a scene's values are marked with: the id, with ``@revision`` where one is pinned."""

    @property
    def kind(self) -> str:
        """The model's ``model_type``."""
        return str(self.model.config.model_type)

    def place(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a processor's tensors on the device, floating ones in the model's dtype; the rest is left out."""
        import torch

        placed = {}
        for key, value in inputs.items():
            if isinstance(value, torch.Tensor):
                placed[key] = value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
        return placed


def source_name(params: WeightsParams) -> str:
    """Return how values from this model are marked: ``ID`` or ``ID@REVISION``."""
    return params.model if params.revision is None else f"{params.model}@{params.revision}"


def fetch_command(params: WeightsParams) -> str:
    """Return the command that downloads the weights."""
    revision = "" if params.revision is None else f" --revision {params.revision}"
    return f"hf download {params.model}{revision}"


def is_folder(params: WeightsParams) -> bool:
    """Tell a folder from a hub id; :class:`InputError` for a path that is no folder."""
    path = Path(params.model).expanduser()
    if path.is_dir():
        return True
    if path.is_absolute() or params.model.startswith((".", "~")) or params.model.count("/") != 1:
        raise InputError(
            f"{params.model}: no such folder, and not a hub id (OWNER/NAME). Give perceive.*.model one of them."
        )
    return False


def pick_device(setting: str) -> torch.device:
    """Return the device of ``perceive.device``; :class:`InputError` where a GPU is asked for and there is none."""
    import torch

    if setting == "cuda" and not torch.cuda.is_available():
        raise InputError("perceive.device is cuda, and torch sees no GPU here. Set perceive.device=auto.")
    if setting == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def load(task: Task, params: WeightsParams, device: str = "auto", gpu_dtype: str = "float32") -> Loaded:
    """Load a model and its processor for a task, once per process, weights, device and dtype.

    ``gpu_dtype`` is what ``dtype: auto`` means on a GPU. Raises :class:`SrgptError` where the weights are not here
    and cannot be fetched, are not safetensors, or are not whole; the message holds the command that fetches them.
    """
    place = pick_device(device)
    dtype = params.dtype if params.dtype != "auto" else ("float32" if place.type == "cpu" else gpu_dtype)
    return _load(task, WeightsParams(model=params.model, revision=params.revision), place.type, dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread of the CPU within.

    How sums are split over threads decides their last bits, and the number of workers decides how many threads each
    gets: so that it does not decide the output as well, a worker has one, and there is a worker per core.
    """
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


@lru_cache(maxsize=32)
def _load(task: Task, params: WeightsParams, device: str, dtype: str) -> Loaded:
    import torch
    import transformers
    from safetensors import SafetensorError

    source = str(Path(params.model).expanduser()) if is_folder(params) else params.model
    options: dict[str, Any] = {"revision": params.revision or "main", "trust_remote_code": False}
    transformers.utils.logging.disable_progress_bar()
    errors = (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
    )
    try:
        kind = transformers.AutoConfig.from_pretrained(source, **options).model_type
        processor = _processor(task, kind, source, options)
        # a pair, because of output_loading_info
        model, found = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused here with their names
            **options,
        )
    except errors as error:
        raise SrgptError(_explain(task, params, error)) from error
    _check_whole(params, found)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: float32's range, much faster
    place = torch.device(device)
    return Loaded(model.to(place).eval(), processor, place, getattr(torch, dtype), source_name(params))


def _processor(task: Task, kind: str, source: str, options: dict[str, Any]) -> Any:
    """Load what turns pictures into tensors: Pillow's way, the same on every machine and without torchvision.

    Depth Pro and SAM 2 have none of that kind in transformers, but read a picture so simply that it is done here.
    """
    import transformers
    from transformers.image_processing_utils import BaseImageProcessor

    if kind in SQUEEZED:
        settings, _ = BaseImageProcessor.get_image_processor_dict(source, **options)
        return Squeeze.from_settings(settings, antialias=SQUEEZED[kind])
    processors = transformers.AutoImageProcessor if task == "DepthEstimation" else transformers.AutoProcessor
    return processors.from_pretrained(source, backend="pil", **options)


def _explain(task: str, params: WeightsParams, error: Exception) -> str:
    from huggingface_hub import is_offline_mode

    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if is_folder(params):
        return (
            f"{params.model}: no model for {task} can be loaded from this folder ({reason}). Expected config.json, "
            "a processor and *.safetensors, as save_pretrained writes them."
        )
    offline = " HF_HUB_OFFLINE is set, so nothing is fetched." if is_offline_mode() else ""
    return (
        f"{params.model}: no model for {task} can be loaded ({reason}).{offline} Fetch its weights with "
        f"`{fetch_command(params)}`, where there is a network, and see `srgpt doctor`."
    )


def _check_whole(params: WeightsParams, found: Mapping[str, Any]) -> None:
    """Refuse a model of which transformers made up a part: random weights answer without an error."""
    for kind in ("missing", "mismatched"):
        names = sorted(key if isinstance(key, str) else key[0] for key in found[f"{kind}_keys"])
        if names:
            more = ", ..." if len(names) > _SHOWN else ""
            raise SrgptError(
                f"{params.model}: {len(names)} weights are {kind} ({', '.join(names[:_SHOWN])}{more}), so it would "
                f"answer at random. Fetch it anew (`{fetch_command(params)}`), or choose another model."
            )
