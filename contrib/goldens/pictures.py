"""Write what Pillow and OpenCV make of small pictures, for tests/unit/test_image_*.c.

    python contrib/goldens/pictures.py            # writes tests/unit/pictures

NAME.png|jpg|webp is read; NAME.rgba holds the pixels that must come out, also of
NAME-adam7.png. The .raw files are results for scene(), which the tests paint themselves.
Not part of export.py's manifest: nothing here depends on torch.
"""
import io
from pathlib import Path

import cv2
import numpy as np
import png
from PIL import Image, ImageFilter, ImageOps, PngImagePlugin

OUT = Path(__file__).resolve().parents[2] / "tests" / "unit" / "pictures"
W, H = 19, 13                    # odd, so that every pass of Adam7 ends in the middle


def scene(w, h):
    """Ramps, a checkerboard, a disc, noise: the tests have the same lines in C."""
    y, x, c = np.mgrid[0:h, 0:w, 0:3].astype(np.int64)
    v = np.where(c == 0, x * 255 // (w - 1), y * 255 // (h - 1))
    v = np.where(c == 2, 255 * ((x // 8 + y // 8) & 1), v)
    inside = (2 * x - w) ** 2 + (2 * y - h) ** 2 < (h * 2 // 3) ** 2
    v = np.where(inside, np.array([230, 40, 90])[c], v)
    noise = (x * 73856093 ^ y * 19349663 ^ c * 83492791) & 0xFFFFFFFF
    return np.clip(v + (noise >> 13 & 31) - 16, 0, 255).astype(np.uint8)


def put(name, data, rgba=None):
    (OUT / name).write_bytes(data)
    if rgba is not None and not name.endswith("-adam7.png"):
        assert rgba.shape == (H, W, 4), rgba.shape
        (OUT / (name.rsplit(".", 1)[0] + ".rgba")).write_bytes(rgba.astype(np.uint8).tobytes())


def rgba(rgb, alpha=255):
    """[h, w] or [h, w, 3] of 8 bits and alpha."""
    rgb = rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, 2)
    alpha = np.broadcast_to(np.asarray(alpha, np.uint8), rgb.shape[:2])[..., None]
    return np.concatenate([rgb, alpha], 2)


def write_png(samples, **options):
    out = io.BytesIO()
    h, w = samples.shape[:2]
    png.Writer(w, h, **options).write(out, samples.reshape(h, -1).tolist())
    return out.getvalue()


def pngs():
    rgb = scene(W, H).astype(np.int64)
    grey = rgb[..., 0]
    alpha = np.arange(W * H).reshape(H, W) * 255 // (W * H - 1)
    for bits in (1, 2, 4, 8, 16):
        top = 2 ** bits - 1
        samples = grey * top // 255 if bits <= 8 else grey * 256 + 77
        want = samples * 255 // top if bits <= 8 else grey
        for interlace in (False, True):
            tag = f"grey{bits}{'-adam7' if interlace else ''}"
            put(f"{tag}.png", write_png(samples, greyscale=True, bitdepth=bits,
                                        interlace=interlace), rgba(want))
    for bits in (8, 16):
        up = 1 if bits == 8 else 257
        for interlace in (False, True):
            tag = f"{bits}{'-adam7' if interlace else ''}"
            put(f"rgb{tag}.png", write_png(rgb * up, greyscale=False, bitdepth=bits,
                                           interlace=interlace), rgba(rgb))
            both = np.concatenate([rgb, alpha[..., None]], 2)
            put(f"rgba{tag}.png", write_png(both * up, greyscale=False, alpha=True,
                                            bitdepth=bits, interlace=interlace), both)
            both = np.stack([grey, alpha], 2)
            put(f"ga{tag}.png", write_png(both * up, greyscale=True, alpha=True,
                                          bitdepth=bits, interlace=interlace),
                rgba(grey, alpha))
    for bits in (1, 2, 4, 8):
        n = min(2 ** bits, 200)
        index = rgb.sum(2) * n // 766
        for transparent in (False, True):
            palette = [((i * 37) % 256, (i * 91) % 256, 255 - i) for i in range(n)]
            colours = np.array([p + (255,) for p in palette])
            if transparent:
                palette = [p + ((i * 53) % 256,) if i < n // 2 else p
                           for i, p in enumerate(palette)]
                colours[:n // 2, 3] = [(i * 53) % 256 for i in range(n // 2)]
            tag = f"palette{bits}{'-trns' if transparent else ''}"
            put(f"{tag}.png", write_png(index, palette=palette, bitdepth=bits,
                                        interlace=transparent), colours[index])
    key = int(grey[6, 9])
    put("grey8-trns.png", write_png(grey, greyscale=True, bitdepth=8, transparent=key),
        rgba(grey, np.where(grey == key, 0, 255)))
    key = tuple(int(v) for v in rgb[6, 9])
    put("rgb8-trns.png", write_png(rgb, greyscale=False, bitdepth=8, transparent=key),
        rgba(rgb, np.where((rgb == key).all(2), 0, 255)))


def save(im, form, **options):
    out = io.BytesIO()
    im.save(out, form, **options)
    return out.getvalue()


def others():
    im = Image.fromarray(scene(W, H))
    frames = [im, ImageOps.mirror(im)]
    cases = {
        "rgb420.jpg": save(im, "JPEG", quality=90),
        "rgb444.jpg": save(im, "JPEG", quality=90, subsampling=0),
        "progressive.jpg": save(im, "JPEG", quality=90, progressive=True),
        "grey.jpg": save(im.convert("L"), "JPEG", quality=90),
        "cmyk.jpg": save(im.convert("CMYK"), "JPEG", quality=95),
        "lossy.webp": save(im, "WEBP", quality=90),
        "lossless.webp": save(im, "WEBP", lossless=True),
    }
    for name, data in cases.items():
        put(name, data, np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")))
    with_alpha = rgba(scene(W, H), np.arange(W * H).reshape(H, W) * 255 // (W * H - 1))
    put("alpha.webp", save(Image.fromarray(with_alpha), "WEBP", lossless=True, exact=True),
        with_alpha)
    for form in ("webp", "png"):
        put(f"animated.{form}", save(im, form.upper(), save_all=True, append_images=frames[1:]))
    # Text, profile and time, which are to be passed over.
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20", zip=True)
    info.add_itxt("Comment", "çç", zip=True)
    put("rgb8-text.png", save(im, "PNG", pnginfo=info, icc_profile=b"not a profile",
                              dpi=(72, 72)), rgba(scene(W, H)))


def results():
    im = Image.fromarray(scene(96, 72))
    for size, (w, h) in (((96, 72), (61, 40)), ((48, 36), (61, 50))):
        data = np.asarray(Image.fromarray(scene(*size)).resize((w, h), Image.LANCZOS))
        put(f"lanczos-{w}x{h}.raw", data.tobytes())
    put("crop-40x40.raw", np.asarray(ImageOps.fit(im, (40, 40), Image.LANCZOS)).tobytes())
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 255
    put("blur4-64x48.raw", np.asarray(
        Image.fromarray(mask).filter(ImageFilter.GaussianBlur(4))).tobytes())
    exact = cv2.GaussianBlur(mask.astype(np.float32), (65, 65), 4, borderType=cv2.BORDER_REPLICATE)
    put("gauss4-64x48.raw", np.rint(exact).astype(np.uint8).tobytes())
    put("canny.raw", np.packbits(cv2.Canny(scene(96, 72), 100, 200) > 0).tobytes())
    grey = np.ascontiguousarray(scene(96, 72)[..., 1])
    put("canny-grey.raw", np.packbits(cv2.Canny(grey, 100, 200) > 0).tobytes())


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    pngs()
    others()
    results()
    print(f"{len(list(OUT.iterdir()))} files, {sum(p.stat().st_size for p in OUT.iterdir())} bytes")
