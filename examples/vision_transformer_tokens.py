"""
Search with the tokens of a vision transformer
==============================================

The tokens of the patches, put back to where the patches are, become feature maps, and any pooler takes them::

    python examples/vision_transformer_tokens.py
    python examples/vision_transformer_tokens.py --model timm:vit_small_patch14_dinov2.lvd142m
    python examples/vision_transformer_tokens.py --model hf:facebook/dinov2-small --image-size 518

Without ``--model``, a small torchvision transformer with random weights: it runs offline, in seconds. The other two
need timm or transformers, and load weights from their hubs; NAME may be a local folder for hf, and ``--random`` builds
the network without its weights. The gallery are the photographs that ship with scikit-image and scikit-learn, the
queries crops, warps, blurred, relit and recompressed views of them.
"""

import argparse
import inspect
from functools import partial

import matplotlib.pyplot as plt
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from skretrieval.datasets import load_sample_photographs, make_photo_views
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import WeightedPooler
from skretrieval.retrieval import NearestNeighborsRetriever

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what an extractor normalises by


# %%
# Tokens as maps
# --------------
# An extractor takes any module that gives maps (N, D, rows, columns) for images. What differs between libraries is how
# the tokens are asked for.


class TokenMaps(nn.Module):
    """The tokens of the patches, put back to where the patches are: (N, 3, H, W) -> (N, D, rows, columns).

    A subclass implements ``encode(images)``, which returns all tokens (N, n, D), those of the patches last.
    """

    def __init__(self, transformer, patch_size, fixed_size=None, mean=IMAGENET[0], std=IMAGENET[1]):
        super().__init__()
        self.transformer = transformer
        self.patch_size = patch_size
        self.fixed_size = fixed_size
        # from the extractor's normalisation to that of the weights
        mean, std, seen_mean, seen_std = (torch.tensor(x).view(3, 1, 1) for x in (mean, std, *IMAGENET))
        self.register_buffer("scale", seen_std / std, persistent=False)
        self.register_buffer("shift", (seen_mean - mean) / std, persistent=False)

    def forward(self, images):
        rows, columns = (max(1, round(side / self.patch_size)) for side in images.shape[2:])
        if self.fixed_size is not None:
            rows = columns = self.fixed_size // self.patch_size
        size = (rows * self.patch_size, columns * self.patch_size)  # the nearest that has whole patches
        if images.shape[2:] != size:
            images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        tokens = self.encode(images * self.scale + self.shift)
        patches = tokens[:, tokens.shape[1] - rows * columns :]  # without class and register tokens
        return patches.transpose(1, 2).unflatten(2, (rows, columns))


class TorchvisionTokens(TokenMaps):
    def encode(self, images):
        patches = self.transformer.conv_proj(images).flatten(2).transpose(1, 2)
        start = self.transformer.class_token.expand(len(images), -1, -1)
        return self.transformer.encoder(torch.cat([start, patches], dim=1))


class TimmTokens(TokenMaps):
    def encode(self, images):
        return self.transformer.forward_features(images)


class HuggingFaceTokens(TokenMaps):
    def encode(self, images):
        resizes = "interpolate_pos_encoding" in inspect.signature(self.transformer.forward).parameters
        options = {"interpolate_pos_encoding": True} if resizes else {}
        return self.transformer(pixel_values=images, **options).last_hidden_state


# %%
# Three sources of a transformer
# ------------------------------
# An extractor takes a function without arguments that builds the network, so that it can be cloned and saved.


def small_transformer():
    """Return a network of two layers for images of 160 x 160 pixels, with random weights."""
    transformer = VisionTransformer(
        image_size=160, patch_size=16, num_layers=2, num_heads=4, hidden_dim=128, mlp_dim=256
    )
    return TorchvisionTokens(transformer, 16, fixed_size=160)


def timm_transformer(name, pretrained=True):
    """Return a vision transformer of timm by its name, for images of any size."""
    import timm

    transformer = timm.create_model(name, pretrained=pretrained, dynamic_img_size=True)
    config = transformer.pretrained_cfg
    patch_size = transformer.patch_embed.patch_size[0]
    return TimmTokens(transformer, patch_size, mean=config["mean"], std=config["std"])


def hugging_face_transformer(name, pretrained=True):
    """Return a vision transformer by its name on the Hugging Face hub, or from a local folder."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    options = {}
    if pretrained:
        model = AutoModel.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
        options = {"mean": processor.image_mean, "std": processor.image_std}
    else:
        model = AutoModel.from_config(AutoConfig.from_pretrained(name))
    model = getattr(model, "vision_model", model)  # of a network for images and text
    return HuggingFaceTokens(model, model.config.patch_size, **options)


def factory(model, pretrained):
    """Return a function without arguments that builds the network: what an extractor takes."""
    if model is None:
        return small_transformer
    library, _, name = model.partition(":")
    factories = {"timm": timm_transformer, "hf": hugging_face_transformer}
    if library not in factories or not name:
        raise SystemExit(f"--model must be timm:NAME or hf:NAME, got {model!r}")
    return partial(factories[library], name, pretrained=pretrained)


# %%
# The search
# ----------
# Tokens are positive and negative: poolers need ``rectify=False``, and a power mean that keeps the signs. What all
# tokens have in common says nothing about the photograph: it is subtracted before the comparison.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="timm:NAME or hf:NAME")
    parser.add_argument("--random", action="store_true", help="build the model without its weights")
    parser.add_argument("--image-size", type=int, default=224, help="longest side in pixels")
    given = parser.parse_args()

    samples = load_sample_photographs()
    views = make_photo_views(samples.images, n_views=2, random_state=0)
    labels = [samples.labels[source] for source in views.labels]

    # weights=None: those that the factory brings, which are random, and from random_state, unless it loads any
    extractor = ConvFeatureExtractor(
        factory(given.model, not given.random), weights=None, random_state=0, image_size=given.image_size
    )
    gallery, queries = (list(extractor.fit_transform(images)) for images in (samples.images, views.images))
    print(f"{len(gallery)} photographs, {len(queries)} queries, maps of {gallery[0].shape}")

    poolers = {
        "mean": WeightedPooler(reduce="mean", rectify=False),
        "GeM with signs, p = 3": WeightedPooler(
            reduce="signed_power_mean", reduce_params={"p": 3}, rectify=False
        ),
        "GeM of the positive part, p = 3": WeightedPooler(reduce="power_mean"),
    }
    search = make_pipeline(StandardScaler(with_std=False), Normalizer(), NearestNeighborsRetriever(5))
    scores = {}
    for name, pooler in poolers.items():
        model = clone(search).fit(pooler.fit_transform(gallery), samples.labels)
        scores[name] = model.score(pooler.transform(queries), labels)
        print(f"mAP {scores[name]:.3f}  {name}")

    _, ax = plt.subplots(figsize=(7, 2), layout="constrained")
    ax.barh(list(scores), list(scores.values()))
    ax.set_xlabel("mAP")
    plt.show()


if __name__ == "__main__":
    main()
