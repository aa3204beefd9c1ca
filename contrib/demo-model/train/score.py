"""Read a picture of one shape without any learned model; numpy and Pillow only.

    seen = score.read(Image.open("a.png"))     # (background, color, shape, center)
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

import render

TILTS = (-.07, 0.0, .07)
DIFFERENT = 90              # summed RGB distance from the background that makes a pixel shape


class Seen(NamedTuple):
    background: str         # a name of render.COLORS
    color: str              # "" when there is no shape
    shape: str              # a name of render.SHAPES, or ""
    center: tuple           # mean of the shape's pixels, x and y as fractions of the sides


def color_name(rgb):
    """The nearest colour of the grammar, allowing for shading by a quarter at a small price."""
    rgb = np.asarray(rgb, np.float32)

    def distance(name, gain):
        target = (np.array(render.COLORS[name], np.float32) * gain).clip(0, 255)
        return np.abs(rgb - target).sum() + 120 * abs(gain - 1)

    return min((distance(name, gain), name) for name in render.COLORS
               for gain in (.75, .85, .95, 1.0, 1.1, 1.2))[1]


def _cut(mask):
    """The mask's bounding box, without the few pixels that lie farthest out."""
    y, x = np.nonzero(mask)
    y0, y1 = np.percentile(y, [.5, 99.5]).astype(int)
    x0, x1 = np.percentile(x, [.5, 99.5]).astype(int)
    return mask[y0:y1 + 1, x0:x1 + 1]


@lru_cache(maxsize=None)
def _templates():
    """(shape, its mask cut to its box) for each shape and tilt."""
    return [(shape, _cut(render.shape_mask(shape, 64, 64, 50, tilt, 128) > .5))
            for shape in render.SHAPES for tilt in TILTS]


def shape_name(mask):
    """The shape that fits a mask (bool, cut to its box) best: overlap and proportions."""
    h, w = mask.shape

    def fit(template):
        t = np.asarray(Image.fromarray(template).resize((w, h)))
        proportion = template.shape[1] / template.shape[0] / (w / h)
        return (t & mask).sum() / max(1, (t | mask).sum()) - .3 * abs(np.log(proportion))

    return max(_templates(), key=lambda row: fit(row[1]))[0]


def read(picture):
    """What a picture of one shape on a plain or vertically shaded background shows."""
    rgb = np.asarray(picture.convert("RGB"), np.float32)      # [height, width, 3]
    height, width = rgb.shape[:2]
    edge = np.median(np.concatenate([rgb[:, :5], rgb[:, -5:]], axis=1), axis=1, keepdims=True)
    ground = color_name(np.median(edge, axis=0)[0])
    shape = np.abs(rgb - edge).sum(-1) > DIFFERENT
    if shape.sum() < 30:
        return Seen(ground, "", "", (0.0, 0.0))
    y, x = np.nonzero(shape)
    return Seen(ground, color_name(np.median(rgb[shape], axis=0)), shape_name(_cut(shape)),
                (float(x.mean() / width), float(y.mean() / height)))


def compare(scene, picture):
    """{"background", "color", "shape"}: which of them the picture of a one-thing scene has."""
    seen, thing = read(picture), scene.things[0]
    return {"background": seen.background == scene.background,
            "color": seen.color == thing.color, "shape": seen.shape == thing.shape}
