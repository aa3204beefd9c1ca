"""Draw the sheets of pictures that the README shows, with the demo model.

    build/venv/bin/python contrib/gallery/gallery.py [SHEET …]     # after make test; needs Pillow

prompts, pictures (img2img and inpaint), loras, samplers: SHEET.webp beside this file.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, GAP, LABEL = 128, 8, 14
HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("DARKROOM_BUILD", HERE.parents[1] / "build"))

PROMPTS = [
    "a large red circle on a blue background",
    "a small yellow star on a black background",
    "a green heart on a white background",
    "a large purple hexagon on a yellow background",
    "an orange triangle on the left on a green background",
    "a white moon at the top on a purple background",
    "a pink diamond left of a blue square on a white background",
    "a blue ring on an orange background",
]
STRENGTHS = [0, 0.5, 1]
SAMPLERS = ["euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "lms", "dpmpp_2m", "dpmpp_2m_sde",
            "dpmpp_2s_a", "dpmpp_sde", "dpmpp_3m_sde", "ddim", "ddpm", "pndm", "uni_pc", "deis"]


class Studio:
    """Makes pictures in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.count = Path(folder), 0

    def make(self, prompt, *options, seed=7):
        self.count += 1
        out = self.folder / f"{self.count}.webp"
        subprocess.run([BUILD / "darkroom", "generate", "--quiet", "--log-level", "warn", prompt,
                        "--seed", str(seed), "-o", out, *map(str, options)],
                       check=True, stdout=subprocess.DEVNULL)
        return out

    def mask(self, box):
        """White in a box (left, top, right, bottom)."""
        self.count += 1
        out = self.folder / f"{self.count}.webp"
        picture = Image.new("L", (SIDE, SIDE), 0)
        ImageDraw.Draw(picture).rectangle(box, fill=255)
        picture.save(out)
        return out


def prompts(studio):
    return 4, [(None, studio.make(p)) for p in PROMPTS]


def pictures(studio):
    """A picture, three made from it, one with a part of it made anew."""
    first = studio.make("a large red circle on a white background")
    cells = [("init", first)]
    for strength in (0.4, 0.6, 0.8):
        cells.append((f"strength {strength}",
                      studio.make("a large blue star on a white background", "--init", first,
                                  "--strength", strength)))
    small = studio.make("a small green square on the left on a yellow background")
    mask = studio.mask((64, 0, 127, 127))
    cells += [("init", small), ("mask", mask)]
    for seed in (1, 2):
        cells.append((f"inpaint, seed {seed}",
                      studio.make("a green square left of a red heart on a yellow background",
                                  "--init", small, "--mask", mask, "--strength", 1, seed=seed)))
    return 4, cells


def loras(studio):
    return 3, [(f"outline:{s}", studio.make(p, "--lora", f"outline:{s}"))
               for p in (PROMPTS[0], PROMPTS[2]) for s in STRENGTHS]


def samplers(studio):
    """On the levels of Karras et al., but those that have timesteps of their own; PNDM is not
    stable on this model in less than a hundred steps."""
    karras = ["--steps", 25, "--schedule", "karras"]
    own = {"ddim": ["--steps", 25], "ddpm": ["--steps", 25], "pndm": ["--steps", 100]}
    return 8, [(name, studio.make(PROMPTS[3], "--sampler", name, *own.get(name, karras)))
               for name in SAMPLERS]


def sheet(columns, cells, path):
    label = LABEL if any(text for text, _ in cells) else 0
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + label + GAP) - GAP),
                     "white")
    draw = ImageDraw.Draw(page)
    for i, (text, picture) in enumerate(cells):
        x, y = i % columns * (SIDE + GAP), i // columns * (SIDE + label + GAP)
        page.paste(Image.open(picture).convert("RGB"), (x, y))
        if text:
            draw.text((x, y + SIDE + 1), text, fill="black")
    page.save(path, quality=92, method=6)


SHEETS = {f.__name__: f for f in (prompts, pictures, loras, samplers)}


def main():
    for name in sys.argv[1:] or SHEETS:
        with tempfile.TemporaryDirectory() as folder:
            sheet(*SHEETS[name](Studio(folder)), HERE / f"{name}.webp")


if __name__ == "__main__":
    main()
