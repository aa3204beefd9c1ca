"""7. Train the "outline" LoRA on the finished model: shapes drawn as strokes.

Writes one adapter under two namings: outline.safetensors (diffusers, PEFT) and
outline-kohya.safetensors (kohya, with alpha tensors).

    python train_lora.py --model ../model --data outline.pt --out ../lora
"""
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

import models
from common import Budget, Running, descend, learning_rate, load_latents, token_ids

RANK, ALPHA = 8, 8
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj",
           "ff.net.2"]


def kohya(state):
    """The same tensors under kohya's names."""
    out = {}
    for name, tensor in state.items():
        layer, part = name.rsplit(".lora_", 1)          # part: "A.weight" or "B.weight"
        layer = "lora_unet_" + layer.replace(".", "_")
        out[f"{layer}.lora_{'down' if part[0] == 'A' else 'up'}.weight"] = tensor
        out[f"{layer}.alpha"] = torch.tensor(float(ALPHA)).half()
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--data", nargs="+", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--cap", type=float, default=480, help="seconds of training")
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline.from_pretrained(a.model, torch_dtype=torch.float32)
    text = pipe.text_encoder.requires_grad_(False)
    unet = pipe.unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS))
    unet.train()
    params = [p for p in unet.parameters() if p.requires_grad]
    latents, texts = load_latents(a.data)
    ids = torch.stack([token_ids(pipe.tokenizer, c) for c in zip(*texts)], 1)   # [n, 3, 77]
    schedule = DDPMScheduler(**models.NOISE)
    opt = torch.optim.AdamW(params, lr=a.lr, weight_decay=0)
    budget, step, mean = Budget(a.cap), 0, Running()
    g = torch.Generator().manual_seed(1)
    while not budget.spent:
        rows = torch.randint(len(latents), (a.batch,), generator=g)
        variant = torch.randint(ids.shape[1], (a.batch,), generator=g)
        noise = torch.randn(latents[rows].shape, generator=g)
        t = torch.randint(1000, (a.batch,), generator=g)
        with torch.no_grad():
            context = text(ids[rows, variant]).last_hidden_state
        guess = unet(schedule.add_noise(latents[rows], noise, t), t, context).sample
        loss = F.mse_loss(guess, noise)
        descend(opt, loss, learning_rate(a.lr, budget, step, 30))
        step += 1
        budget.tick()
        (shown,) = mean.add(loss.item())
        if step % 25 == 0:
            print(f"step {step} {budget.used:.0f} s loss {shown:.4f}", flush=True)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in get_peft_model_state_dict(unet).items()}
    save_file({"unet." + k: v for k, v in state.items()}, out / "outline.safetensors",
              {"format": "pt"})
    save_file(kohya(state), out / "outline-kohya.safetensors",
              {"ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA)})
    print(f"{len(state)} tensors -> {out}")


if __name__ == "__main__":
    main()
