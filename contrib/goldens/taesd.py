"""Write tests/golden/taesd: a small AutoencoderTiny with random weights, and what its decoder
makes of latents.

    python contrib/goldens/taesd.py [OUT]        # alone, without the other fixtures

`model/` is diffusers' layout; `original/taesd_decoder.safetensors` holds the same decoder under
the names of the first release, where a clamp is layer 0.
"""
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

import stages

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 8


def export(folder):
    (folder / "original").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(17)
    model = AutoencoderTiny(encoder_block_out_channels=(WIDTH,) * 4,
                            decoder_block_out_channels=(WIDTH,) * 4, num_encoder_blocks=(1,) * 4)
    model = model.half().float().eval()          # the numbers that the file holds
    model.half().save_pretrained(folder / "model", safe_serialization=True)
    original = {}
    for name, tensor in model.decoder.state_dict().items():
        layer, rest = name.removeprefix("layers.").split(".", 1)
        original[f"{int(layer) + 1}.{rest}"] = tensor.contiguous()
    save_file(original, folder / "original/taesd_decoder.safetensors")
    model.float()
    out, cases = {}, []
    for i, (height, width) in enumerate([(8, 8), (5, 12)]):
        out[f"latents.{i}"] = 3 * stages.seeded(500 + i, 2, 4, height, width)
        out[f"rgb.{i}"] = model.decode(out[f"latents.{i}"]).sample.contiguous()
        cases.append({"latents": f"latents.{i}", "rgb": f"rgb.{i}"})
    stages.write(folder, out, {"cases": cases})
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/golden/taesd")
