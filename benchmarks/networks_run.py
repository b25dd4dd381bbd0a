"""Whether networks of many families run: finite maps of three shapes, clones, pickles, processes, equal fingerprints.

    python benchmarks/networks_run.py [--out benchmarks/results/networks_run.md] [NAME ...]

Random weights. Networks of transformers are made with small configurations, in a temporary folder.
"""

import argparse
import json
import pickle
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.base import clone

from skretrieval.extraction import ConvFeatureExtractor

NAMES = [
    "vit_b_32", "swin_t", "maxvit_t",
    "timm:tf_efficientnet_lite0", "timm:resnet18", "timm:convnext_atto", "timm:vit_tiny_patch16_224",
    "timm:vit_small_patch14_reg4_dinov2", "timm:swin_tiny_patch4_window7_224", "timm:mobilenetv4_conv_small",
    "timm:regnety_002", "timm:eva02_tiny_patch14_224", "timm:vit_base_patch32_siglip_256", "timm:pvt_v2_b0",
    "timm:maxvit_tiny_tf_224", "timm:xcit_nano_12_p16_224", "timm:davit_tiny", "timm:mobilevit_xxs",
    "timm:levit_128s", "timm:hiera_tiny_224", "timm:mixer_s32_224", "timm:beit_base_patch16_224",
]  # fmt: skip
SHAPES = ((240, 320, 3), (400, 200, 3), (300, 300, 3))
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 112,
}
KINDS = {
    "Dinov2": {**TINY, "patch_size": 14},
    "Dinov2WithRegisters": {**TINY, "patch_size": 14, "num_register_tokens": 4},
    "DINOv3ViT": {**TINY, "patch_size": 16, "num_register_tokens": 4},
    "ViT": {**TINY, "patch_size": 16},
    "Beit": {**TINY, "patch_size": 16},
    "SiglipVision": {**TINY, "patch_size": 16},
    "CLIPVision": {**TINY, "patch_size": 16},
    "ConvNextV2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
}  # fmt: skip


def first_maps(extractor, images):
    return [np.asarray(maps) for maps in extractor.transform(images)]


def row(name):
    """Return what a line of the table says of a network."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in SHAPES]
    extractor = ConvFeatureExtractor(name, weights=None, random_state=0, image_size=224, device="cpu")
    start = time.perf_counter()
    extractor.fit(images)
    built = time.perf_counter() - start
    try:
        start = time.perf_counter()
        maps = first_maps(extractor, images)
        ran = time.perf_counter() - start
    except ValueError as error:
        if "pixels only" not in str(error):
            raise
        images = images[2:]
        maps, ran = first_maps(extractor, images), float("nan")
    assert all(np.isfinite(one).all() for one in maps)
    copies = [pickle.loads(pickle.dumps(extractor)), clone(extractor).fit(images)]
    for copy in copies:
        assert copy.fingerprint_ == extractor.fingerprint_
        assert all(
            np.array_equal(one, other) for one, other in zip(first_maps(copy, images), maps, strict=True)
        )
    for found in joblib.Parallel(n_jobs=2)(joblib.delayed(first_maps)(extractor, images) for _ in range(2)):
        assert all(np.allclose(one, other, atol=1e-4) for one, other in zip(found, maps, strict=True))
    shapes = ", ".join(" x ".join(map(str, one.shape)) for one in maps)
    multiple = extractor._network().size_multiple if len(maps) == 3 else "one size"
    return f"| {name} | {shapes} | {multiple} | {built:.1f} | {ran / 3:.2f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# Networks that run",
        "",
        "`benchmarks/networks_run.py`: random weights, photographs of 4:3, 1:2 and 1:1, longest side 224.",
        "Each was cloned, pickled, sent to two processes and fitted twice: equal maps, equal fingerprints.",
        "",
        "| network | maps | sides are multiples of | build, s | photograph, s |",
        "|---|---|---|---|---|",
    ]
    for name in options.names:
        lines.append(row(name))
        print(lines[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        import transformers

        for kind, values in KINDS.items() if options.names == NAMES else ():
            path = Path(folder) / kind
            torch.manual_seed(0)
            transformers.AutoModel.from_config(
                getattr(transformers, f"{kind}Config")(**values)
            ).save_pretrained(path)
            (path / "preprocessor_config.json").write_text(
                json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
            )
            lines.append(row(f"hf:{path}").replace(f"{folder}/", ""))
            print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
