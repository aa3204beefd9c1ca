"""The world of the demo model: scenes of flat coloured shapes, their pictures, their captions.

    scene   = random_scene(rng)
    picture = render(scene)          # uint8 RGB, SIZE x SIZE x 3
    text    = caption(scene, rng)

All randomness comes from the random.Random that is passed in, so a seed names a data set.
A scene with style "outline" draws strokes instead of areas: the data of the LoRA.
Needs numpy and Pillow only.

    python render.py sheet.png       # a page of examples
"""
import math
import random
import sys
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 128
SUPERSAMPLE = 4

# Far enough from each other that a person, the model and the scorer agree on the name.
COLORS = {
    "red": (222, 38, 44), "orange": (250, 138, 24), "yellow": (250, 218, 44),
    "green": (44, 160, 62), "blue": (38, 86, 214), "purple": (136, 54, 176),
    "pink": (248, 142, 186), "white": (246, 246, 246), "black": (22, 22, 26),
}
SHAPES = ["circle", "square", "triangle", "star", "heart",
          "ring", "cross", "moon", "diamond", "hexagon"]

# Lengths are fractions of the picture's side; a size is the radius around the shape.
SIZES = {"small": 0.145, "medium": 0.225, "large": 0.335}
PAIR_SIZES = {"small": 0.13, "medium": 0.185, "large": 0.225}
PLACES = {"left": (0.29, 0.50), "right": (0.71, 0.50), "top": (0.50, 0.29),
          "bottom": (0.50, 0.71), "center": (0.50, 0.50)}


@dataclass
class Thing:
    shape: str
    color: str
    size: str
    cx: float
    cy: float
    r: float
    angle: float = 0.0      # radians; a few degrees at most


@dataclass
class Scene:
    background: str
    shade: float            # strength of the vertical gradient, 0: plain
    things: list = field(default_factory=list)      # one or two
    relation: str = ""      # of a pair: the first is "left" of or "above" the second
    place: str = ""         # of a single thing: a key of PLACES
    style: str = "filled"


# --- pictures ---------------------------------------------------------------------------

def _spokes(radii, n, start):
    """n points around the centre, distances taken from `radii` in turn."""
    turn = 2 * math.pi / n
    return [(radii[i % len(radii)] * math.cos(start + i * turn),
             radii[i % len(radii)] * math.sin(start + i * turn)) for i in range(n)]


def _heart():
    points = []
    for i in range(72):
        t = 2 * math.pi * i / 72
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3 / 17, (2 - y) / 16))
    return points


_BAR = 0.34                 # half the width of the cross's bars
POLYGONS = {                # inside the unit circle, y down
    "square": [(-.8, -.8), (.8, -.8), (.8, .8), (-.8, .8)],
    "triangle": [(0, -.92), (.96, .76), (-.96, .76)],
    "star": _spokes((1.0, 0.42), 10, -math.pi / 2),
    "heart": _heart(),
    "cross": [(-_BAR, -.92), (_BAR, -.92), (_BAR, -_BAR), (.92, -_BAR), (.92, _BAR),
              (_BAR, _BAR), (_BAR, .92), (-_BAR, .92), (-_BAR, _BAR), (-.92, _BAR),
              (-.92, -_BAR), (-_BAR, -_BAR)],
    "diamond": [(0, -1), (.68, 0), (0, 1), (-.68, 0)],
    "hexagon": _spokes((1.0,), 6, 0.0),
}
# Shapes made of discs: (offset x, offset y, radius, paint or cut).
DISCS = {
    "circle": [(0, 0, .94, 255)],
    "ring": [(0, 0, .97, 255), (0, 0, .55, 0)],
    "moon": [(0, 0, .97, 255), (.48, -.14, .80, 0)],
}


def shape_mask(shape, cx, cy, r, angle=0.0, size=SIZE):
    """How much of each pixel the shape covers, float32 [size, size]; lengths in pixels."""
    k = SUPERSAMPLE
    ca, sa = math.cos(angle), math.sin(angle)

    def place(x, y):
        return k * (cx + r * (x * ca - y * sa)), k * (cy + r * (x * sa + y * ca))

    im = Image.new("L", (size * k, size * k), 0)
    draw = ImageDraw.Draw(im)
    for dx, dy, radius, paint in DISCS.get(shape, []):
        x, y = place(dx, dy)
        q = k * r * radius
        draw.ellipse([x - q, y - q, x + q, y + q], fill=paint)
    if shape in POLYGONS:
        draw.polygon([place(x, y) for x, y in POLYGONS[shape]], fill=255)
    return np.asarray(im.resize((size, size), Image.BOX), np.float32) / 255


def outline_mask(shape, cx, cy, r, angle=0.0, size=SIZE, width=3.2):
    """A stroke along the shape's border: the grown shape without the shrunken one."""
    k = SUPERSAMPLE
    area = Image.fromarray((shape_mask(shape, cx, cy, r, angle, size) * 255).astype(np.uint8))
    area = area.resize((size * k, size * k), Image.BICUBIC).point(lambda v: 255 * (v > 127))
    inner = outer = area
    for _ in range(int(width * k) // 2):
        inner = inner.filter(ImageFilter.MinFilter(3))
        outer = outer.filter(ImageFilter.MaxFilter(3))
    stroke = np.asarray(outer, np.int16) - np.asarray(inner, np.int16)
    stroke = Image.fromarray(stroke.clip(0, 255).astype(np.uint8))
    return np.asarray(stroke.resize((size, size), Image.BOX), np.float32) / 255


def background(name, shade, size=SIZE):
    """Plain, or darker towards the bottom; black gets lighter, having nothing to lose."""
    color = np.array(COLORS[name], np.float32)
    t = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    if name == "black":
        rows = color + (t + 1) * 0.5 * shade * 90
    elif name == "white":
        rows = color - (t + 1) * 0.5 * shade * 120
    else:
        rows = color * (1 - t * shade)
    return np.repeat(rows.clip(0, 255)[:, None, :], size, axis=1)


def render(scene, size=SIZE):
    picture = background(scene.background, scene.shade, size)
    mask_of = outline_mask if scene.style == "outline" else shape_mask
    for o in scene.things:
        mask = mask_of(o.shape, o.cx * size, o.cy * size, o.r * size, o.angle, size)[..., None]
        picture = picture * (1 - mask) + np.array(COLORS[o.color], np.float32) * mask
    return (picture + 0.5).clip(0, 255).astype(np.uint8)


# --- scenes -----------------------------------------------------------------------------

def _thing(rng, background_name, size, cx, cy, r):
    shape = rng.choice(SHAPES)
    color = rng.choice([c for c in COLORS if c != background_name])
    return Thing(shape, color, size, cx, cy, r * rng.uniform(.94, 1.06),
                 rng.uniform(-.07, .07))


def _single(rng, scene):
    size = rng.choice(list(SIZES))
    scene.place = rng.choice(list(PLACES) + ["center"] * 2)
    r = SIZES[size]
    far = .985 - r * 1.06              # keeps a large shape inside the picture
    cx, cy = (min(max(v + rng.uniform(-.03, .03), 1 - far), far)
              for v in PLACES[scene.place])
    scene.things.append(_thing(rng, scene.background, size, cx, cy, r))


def _pair(rng, scene):
    scene.relation = "left" if rng.random() < .65 else "above"
    size = "medium" if rng.random() < .6 else rng.choice(list(PAIR_SIZES))
    for along in (.265, .735):
        along += rng.uniform(-.015, .015)
        across = .5 + rng.uniform(-.03, .03)
        cx, cy = (along, across) if scene.relation == "left" else (across, along)
        scene.things.append(_thing(rng, scene.background, size, cx, cy, PAIR_SIZES[size]))


def random_scene(rng, pair_share=0.5, style="filled"):
    """One scene; a share of `pair_share` holds two shapes."""
    name = rng.choice(list(COLORS))
    scene = Scene(name, 0.0 if rng.random() < .5 else rng.uniform(.05, .22), style=style)
    (_single if rng.random() >= pair_share else _pair)(rng, scene)
    return scene


# --- captions ---------------------------------------------------------------------------

PREFIXES = [""] * 3 + ["a photo of ", "a picture of ", "an image of ", "a drawing of "]
PLACE_WORDS = {
    "left": ["on the left", "at the left", "on the left side"],
    "right": ["on the right", "at the right", "on the right side"],
    "top": ["at the top", "on top"],
    "bottom": ["at the bottom"],
    "center": ["in the center", "in the middle", "", ""],
}
SIZE_WORDS = {"small": ["small", "tiny", "little"], "medium": ["medium", "", ""],
              "large": ["large", "big", "huge"]}
SHAPE_WORDS = {"moon": ["moon", "moon", "crescent"], "ring": ["ring", "ring", "donut"],
               "cross": ["cross", "cross", "plus"]}
PAIR_TEXTS = {
    "left": ["{a} left of {b}", "{a} left of {b}", "{a} to the left of {b}",
             "{b} right of {a}", "{b} to the right of {a}",
             "{a} on the left and {b} on the right", "{a} next to {b}", "{a} and {b}"],
    "above": ["{a} above {b}", "{a} above {b}", "{b} below {a}", "{a} on top of {b}",
              "{a} at the top and {b} at the bottom"],
}


def _a(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def _name(o, sized, rng):
    size = rng.choice(SIZE_WORDS[o.size]) if sized else ""
    shape = rng.choice(SHAPE_WORDS.get(o.shape, [o.shape]))
    text = " ".join(w for w in (size, o.color, shape) if w)
    return "one " + text if rng.random() < .15 else _a(text)


def _ground(name, rng):
    kind = rng.random()
    if kind < .60:
        return f"on {_a(name)} background"
    if kind < .75:
        return f"on {name}"
    if kind < .88:
        return f"with {_a(name)} background"
    return f", {name} background"


def caption(scene, rng):
    ground = _ground(scene.background, rng)
    parts = []
    if len(scene.things) == 1:
        place = rng.choice(PLACE_WORDS[scene.place])
        if place and rng.random() < .25:
            place = ""
        parts = [_name(scene.things[0], rng.random() < .85, rng), place]
        place_last = rng.random() < .3
        if place and place_last and not ground.startswith(","):
            parts = [parts[0], ground, place]
            ground = ""
    else:
        first, second = scene.things
        sized = first.size != "medium" and rng.random() < .6
        a, b = _name(first, sized, rng), _name(second, sized, rng)
        parts = [rng.choice(PAIR_TEXTS[scene.relation]).format(a=a, b=b)]
    text = " ".join(p for p in parts + [ground] if p).replace(" ,", ",")
    return rng.choice(PREFIXES) + text


def caption_words():
    """Every word that caption() can produce, and the comma."""
    text = list(PREFIXES) + list(COLORS) + SHAPES
    for table in (PLACE_WORDS, SIZE_WORDS, SHAPE_WORDS):
        text += [w for words in table.values() for w in words]
    for words in PAIR_TEXTS.values():
        text += [w.format(a="", b="") for w in words]
    text += ["a an one on with background ,"]
    return sorted(set(" ".join(text).split()))


def main(path, columns=8, rows=6):
    rng = random.Random(0)
    cell = SIZE + 4
    sheet = Image.new("RGB", (columns * cell, rows * cell), "gray")
    for i in range(columns * rows):
        scene = random_scene(rng, style="outline" if i >= columns * (rows - 1) else "filled")
        sheet.paste(Image.fromarray(render(scene)), (i % columns * cell, i // columns * cell))
        print(i, caption(scene, rng))
    sheet.save(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "scenes.png")
