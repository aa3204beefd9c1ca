"""4. Teach the text encoder what a caption says before it meets the UNet.

A linear head on the state at the end token must name the background, the relation, the place
and shape, colour and size of both things. The head is thrown away; a UNet that starts from
such an encoder learns to obey the prompt many times faster.

    python train_text.py --model ../model --out text.pt --cap 300
"""
import argparse
import random

import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

import models
import render
from common import Budget, Running, descend, learning_rate, load

COLORS, SHAPES, SIZES = list(render.COLORS), render.SHAPES, list(render.SIZES)
PLACES, RELATIONS = list(render.PLACES) + [""], ["", "left", "above"]
THING = [len(SHAPES) + 1, len(COLORS) + 1, len(SIZES) + 1]      # the last of each: no thing
CLASSES = [len(COLORS), len(RELATIONS), len(PLACES)] + THING + THING


def labels(scene):
    out = [COLORS.index(scene.background), RELATIONS.index(scene.relation),
           PLACES.index(scene.place)]
    for o in scene.things:
        out += [SHAPES.index(o.shape), COLORS.index(o.color), SIZES.index(o.size)]
    return out + [n - 1 for n in THING] * (2 - len(scene.things))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--start", help="a checkpoint of train_unet.py to take the encoder from")
    ap.add_argument("--cap", type=float, default=300, help="seconds of training")
    ap.add_argument("--batch", type=int, default=96)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(a.model, subfolder="tokenizer")
    text = models.text_encoder(tokenizer)
    if a.start:
        text.load_state_dict(load(a.start)["text"])
    head = torch.nn.Linear(models.WIDTH, sum(CLASSES))
    opt = torch.optim.AdamW([*text.parameters(), *head.parameters()], lr=a.lr,
                            betas=(.9, .99), weight_decay=.01)
    rng, budget, step, mean = random.Random(5), Budget(a.cap), 0, Running()
    while not budget.spent:
        scenes = [render.random_scene(rng) for _ in range(a.batch)]
        ids = tokenizer([render.caption(s, rng) for s in scenes], padding="longest",
                        return_tensors="pt").input_ids
        want = torch.tensor([labels(s) for s in scenes]).T
        states = text(ids).last_hidden_state
        end = (ids == tokenizer.eos_token_id).int().argmax(1)
        guess = head(states[torch.arange(len(ids)), end]).split(CLASSES, dim=1)
        loss = sum(F.cross_entropy(g, w) for g, w in zip(guess, want)) / len(CLASSES)
        descend(opt, loss, learning_rate(a.lr, budget, step, 50))
        step += 1
        budget.tick()
        right = mean.add(*((g.argmax(1) == w).float().mean().item()
                           for g, w in zip(guess, want)))
        if step % 50 == 0:
            print(f"step {step} {budget.used:.0f} s loss {loss.item():.3f} right "
                  + " ".join(f"{v:.2f}" for v in right), flush=True)
    torch.save(text.state_dict(), a.out)


if __name__ == "__main__":
    main()
