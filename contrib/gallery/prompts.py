"""Draw the README's picture: eight prompts of the demo model on one sheet.

    build/venv/bin/python contrib/gallery/prompts.py     # after make test; needs Pillow
"""
import os
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

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
SIDE, GAP, COLUMNS = 128, 8, 4
HERE = Path(__file__).resolve().parent


def main():
    program = Path(os.environ.get("DARKROOM_BUILD", HERE.parents[1] / "build")) / "darkroom"
    rows = -(-len(PROMPTS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), "white")
    with tempfile.TemporaryDirectory() as folder:
        for i, prompt in enumerate(PROMPTS):
            out = Path(folder) / f"{i}.webp"
            subprocess.run([program, "generate", prompt, "--seed", "7", "-o", out], check=True)
            at = (i % COLUMNS * (SIDE + GAP), i // COLUMNS * (SIDE + GAP))
            sheet.paste(Image.open(out).convert("RGB"), at)
    sheet.save(HERE / "prompts.webp", quality=92, method=6)


if __name__ == "__main__":
    main()
