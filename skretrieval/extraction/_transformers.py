"""Networks of transformers by name or folder: what they are, their maps, and their weights."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from sklearn.utils import Bunch
from torch import nn

from ._network_maps import as_map, grid_of
from ._timm import first_line

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_CLS = ("cls_token", "class_embedding", "class_token")
_NORMS = ("layernorm", "layer_norm", "norm", "post_layernorm")
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "backbone='hf:...' needs the package transformers: pip install 'scikit-retrieval[hf]'."
        ) from error
    return transformers


def check_name(name: str) -> None:
    """Raise an error if there is no name, or a folder that holds no model, or transformers is missing."""
    if not name:
        raise ValueError("backbone='hf:' must go on with a name or a folder.")
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise ValueError(f"backbone='hf:{name}': the folder holds no config.json.")
    if not os.path.isdir(name):
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"backbone='hf:{name}': no such folder, and no name of a model.") from error
    _library()


def config_of(name: str) -> Any:
    """Return the configuration of a network that sees, from its folder, the cache of the hub, or by download.

    Raises
    ------
    OSError
        If there is none.
    ValueError
        If transformers does not know the kind of network, or it would run code of the model's own.
    """
    transformers = _library()
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"backbone='hf:{name}': {first_line(error)}.") from error
    except Exception as error:  # the hub and its client raise errors of many kinds
        raise OSError(
            f"The configuration of 'hf:{name}' could not be read or downloaded ({first_line(error)}). {_where(name)}."
        ) from error
    return getattr(config, "vision_config", config)


def config_text(name: str) -> str:
    """Return the configuration as JSON, from which the network can be built without its folder."""
    return json.dumps(config_of(name).to_dict(), sort_keys=True, default=str)


def build(name: str, config: str | None = None) -> nn.Module:
    """Build a network without trained weights.

    Parameters
    ----------
    name : str
        Name or folder.
    config : str, optional
        From :func:`config_text`; then nothing else is read.
    """
    transformers = _library()
    if config is None:
        found = config_of(name)
    else:
        values = json.loads(config)
        found = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    try:
        try:  # what pools the tokens takes no part in maps
            return transformers.AutoModel.from_config(found, add_pooling_layer=False)
        except TypeError:
            return transformers.AutoModel.from_config(found)
    except ValueError as error:
        raise ValueError(f"backbone='hf:{name}': {first_line(error)}.") from error


def default_state_dict(name: str) -> dict:
    """Load the weights of a network, from its folder, the cache of the hub, or by download.

    Raises
    ------
    OSError
        If there are none: the message says which file to put where.
    """
    transformers = _library()
    config = config_of(name)
    try:
        with quiet():
            found = transformers.AutoModel.from_pretrained(
                name, config=config, trust_remote_code=False, output_loading_info=True
            )
        return _loaded(*found)
    except Exception as error:  # the hub and its client raise errors of many kinds
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise OSError(
            f"The weights of 'hf:{name}' could not be read or downloaded ({first_line(error)}). "
            f"{_where(name)}, or give the path of a state dict as `weights`."
        ) from error


def converted(name: str, state: dict) -> dict:
    """Give weights of a file the names that the network has, also those of a classifier or of an earlier release.

    Raises
    ------
    ValueError
        If they are not those of the network.
    """
    config = config_of(name)
    with torch.device("meta"):
        kind: Any = type(_library().AutoModel.from_config(config))
    try:
        with quiet():
            return _loaded(
                *kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
            )
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the backbone 'hf:{name}': {first_line(error)}.") from error


def _loaded(network: Any, report: dict[str, Any]) -> dict:
    """Return the weights that came; transformers makes up those that are missing."""
    missing = set(report["missing_keys"])
    return {name: tensor for name, tensor in network.state_dict().items() if name not in missing}


@contextlib.contextmanager
def quiet() -> Any:
    """Keep transformers from drawing progress bars and from reporting weights that a part does not need."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _where(name: str) -> str:
    if os.path.isdir(name):
        return f"Put config.json and model.safetensors into {os.path.abspath(name)}"
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"On a machine with a network, `hf download {name} config.json preprocessor_config.json model.safetensors` "
        f"puts them into {HF_HUB_CACHE}; copy the folder models--{name.replace('/', '--')} from there into "
        f"{HF_HUB_CACHE} here, or name a folder that holds them: hf:FOLDER"
    )


def _file(name: str, file: str) -> str | None:
    """Return where a file of a model lies on this machine, without a download."""
    if os.path.isdir(name):
        path = os.path.join(name, file)
        return path if os.path.isfile(path) else None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, file)
    except ValueError:  # the name of a repository that no hub has
        return None
    return found if isinstance(found, str) else None


def missing_file(name: str) -> str | None:
    """Tell which file of weights is needed and not on this machine; None where it is there."""
    if any(_file(name, file) for file in _WEIGHT_FILES):
        return None
    return f"model.safetensors of {name}"


def asked(name: str) -> Bunch:
    """Return the mean, the standard deviation and the interpolation that the weights ask for, and their licence."""
    try:
        values = _processor(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"backbone='hf:{name}': preprocessor_config.json cannot be read ({first_line(error)}); give "
            "`normalization` and `interpolation`."
        ) from error
    std = values.get("image_std") or (0.229, 0.224, 0.225)
    mean = values.get("image_mean") or (0.485, 0.456, 0.406)
    if values.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Bunch(
        mean=tuple(mean) if isinstance(mean, list) else mean,
        std=tuple(std) if isinstance(std, list) else std,
        interpolation=_RESAMPLING.get(values.get("resample", 3), "bicubic"),
        licence=_licence(name),
    )


def _processor(name: str) -> dict[str, Any]:
    for file in ("preprocessor_config.json", "processor_config.json"):
        path = _file(name, file)
        if path is None and not os.path.isdir(name) and file == "preprocessor_config.json":
            from huggingface_hub import hf_hub_download

            with contextlib.suppress(Exception):  # offline, or it has none: ImageNet's usual values
                path = hf_hub_download(name, file)
        if path is not None:
            with open(path, encoding="utf-8") as stream:
                values = json.load(stream)
            if not isinstance(values, dict):
                raise ValueError(f"{path} holds no object.")
            return values.get("image_processor", values)
    return {}


def _licence(name: str) -> str | None:
    path = _file(name, "README.md")
    if path is None:
        return None
    with open(path, encoding="utf-8", errors="replace") as stream:
        lines = stream.read(20_000).splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    found = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key in ("license", "license_name", "license_link"):
            found[key] = value.strip().strip("'\"")
    if found.get("license") == "other":
        return found.get("license_name") or found.get("license_link") or "other"
    return found.get("license")


class TransformersReader:
    """The maps of a network of transformers; see :class:`~skretrieval.extraction._network_maps.Reader`."""

    channels_last = False

    def __init__(self, network: Any):
        self.network = network
        config = network.config
        names = [name.rpartition(".")[2] for name, _ in network.named_parameters()]
        self.has_cls = any(name in names for name in _CLS)
        registers = int(getattr(config, "num_register_tokens", 0) or 0)
        self.n_prefix = self.has_cls + ("distillation_token" in names) + registers
        size = getattr(config, "image_size", None) or 224
        self.native = int(size if isinstance(size, int) else size[-1])
        self.step = int(_first(getattr(config, "patch_size", None) or 1))
        depth = getattr(config, "num_hidden_layers", None)
        stage_depths = getattr(config, "depths", None)
        self.n_blocks = int(depth) if depth and not stage_depths else len(stage_depths or ())
        if stage_depths:  # each stage after the first halves the sides
            self.step *= 2 ** (len(stage_depths) - 1)
        self._options: dict[str, Any] = {}
        if "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
            self._options["interpolate_pos_encoding"] = True

    def run(self, images: torch.Tensor) -> Any:
        """Run all layers."""
        return self.network(images, **self._options)

    def last(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the last map, after the final norm, and the prefix tokens."""
        return self._map(self.run(images).last_hidden_state, images)

    def blocks(
        self, images: torch.Tensor, indices: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the maps after some blocks or stages, after the final norm where it fits, and their prefix tokens."""
        outputs = self.network(images, output_hidden_states=True, **self._options)
        states = getattr(outputs, "reshaped_hidden_states", None) or outputs.hidden_states
        return [
            self._map(outputs.last_hidden_state, images)
            if index == self.n_blocks - 1
            else self._map(self._normed(states[index + 1]), images)
            for index in indices
        ]

    def _normed(self, state: torch.Tensor) -> torch.Tensor:
        if state.ndim != 3:
            return state
        norm = next((getattr(self.network, name) for name in _NORMS if hasattr(self.network, name)), None)
        return state if norm is None else norm(state)

    def _map(self, output: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if output.ndim == 4:
            return output, None
        grid = grid_of(output.shape[1] - self.n_prefix, *images.shape[2:])
        if grid is None:
            raise ValueError(
                f"{type(self.network).__name__} gives {output.shape[1]} tokens for a photograph of "
                f"{images.shape[3]} x {images.shape[2]} pixels, which make no map."
            )
        return as_map(output, self.n_prefix, grid)


def _first(value: Any) -> int:
    return value[0] if isinstance(value, tuple | list) else value
