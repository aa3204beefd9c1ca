"""What bench/run.py makes of its samples."""
import math


def percentile(samples, share):
    """The value below which a share (0..1) of the samples lies; between two of them in
    proportion, as numpy's default."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def power_law(points):
    """(a, k) of the y = a * x^k that is nearest to the points [(x, y), …] in logarithms, by
    least squares; all positive, two different x at least."""
    x = [math.log(p[0]) for p in points]
    y = [math.log(p[1]) for p in points]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    k = (sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x))
    return math.exp(my - k * mx), k
