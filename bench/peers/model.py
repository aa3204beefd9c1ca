"""SD 1.5's real shapes with random weights, fp16, in diffusers' folder layout: 2.1 GB.

usage: model.py OUTDIR

Like contrib/goldens/fullwidth.py, with the whole text encoder (12 layers, 49,408 tokens, of
which the tokenizer knows the first thousand). Two minutes and 5 GB of memory; OUTDIR appears
when it is complete.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "contrib" / "goldens"))

import fullwidth
import bpe
import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

TEXT = dict(fullwidth.TEXT, num_hidden_layers=12, vocab_size=49408)


def main():
    final = Path(sys.argv[1])
    folder = final.with_name(final.name + ".part")
    torch.set_grad_enabled(False)
    bpe.write(folder / "tokenizer", fullwidth.VOCABULARY)
    for name, seed, make, gain in (
            ("text_encoder", 11, lambda: CLIPTextModel(CLIPTextConfig(**TEXT)), {}),
            ("unet", 12, lambda: UNet2DConditionModel(**fullwidth.UNET), fullwidth.UNET_GAIN),
            ("vae", 13, lambda: AutoencoderKL(**fullwidth.VAE), fullwidth.VAE_GAIN)):
        print(f"model: {name}", file=sys.stderr, flush=True)
        fullwidth.build(folder / name, seed, make(), gain)
    tiny.dump(folder / "scheduler" / "scheduler_config.json", tiny.SCHEDULER)
    tiny.dump(folder / "model_index.json", tiny.INDEX)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    os.rename(folder, final)


main()
