"""The demo model's pictures show what the prompt says, judged by colour and outline."""
import io
import sys

from PIL import Image

from conftest import ROOT

sys.path.insert(0, str(ROOT / "contrib/demo-model/train"))
import score  # noqa: E402

CASES = [
    ("a large red circle on a blue background", 1),
    ("a large yellow star on a purple background", 2),
    ("a green square on a white background", 3),
    ("a large white heart on a red background", 4),
    ("a blue triangle on a yellow background", 5),
    ("a large pink ring on a green background", 6),
    ("an orange diamond on a blue background", 7),
    ("a large white cross on a green background", 8),
    ("a purple hexagon on a white background", 9),
    ("a large yellow moon on a blue background", 10),
]


def test_ten_prompts_are_drawn_right(redis):
    """Background, colour and shape, each."""
    names = {prompt: redis.submit(prompt=prompt, seed=seed, steps=15, cfg_scale=5)
             for prompt, seed in CASES}
    misses = []
    for prompt, name in names.items():
        assert redis.end(name, 120)["event"] == "succeeded"
        seen = score.read(Image.open(io.BytesIO(redis.result(name))))
        words = prompt.split()
        color, shape, ground = words[words.index("on") - 2], words[words.index("on") - 1], words[-2]
        if (seen.background, seen.color, seen.shape) != (ground, color, shape):
            misses.append((prompt, seen))
    assert not misses, misses
