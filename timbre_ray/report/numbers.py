"""Numbers as the report prints them: as many decimals as its words need."""

from __future__ import annotations

import math

NOTHING = "–"
Interval = tuple[float, float]
_MOST_DIGITS = 6


def number(value: float, *, signed: bool = False, digits: int | None = None) -> str:
    """``digits`` decimals, else two, or three below one tenth; a true minus sign."""
    if digits is None:
        digits = 3 if 0 < abs(value) < 0.1 else 2
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def digits_beside(interval: Interval | None) -> int | None:
    """Decimals of an interval's ends, and of the means beside it: a figure of its half width, and where it excludes zero none of
    its ends is printed as zero, as a verdict hangs on that. None, ``number``'s own, where there is no interval.
    """
    if interval is None:
        return None
    low, high = interval
    nearer = max(low, -high, 0.0)
    return min(max(2, _places((high - low) / 2), _places(nearer)), _MOST_DIGITS)


def _places(value: float) -> int:
    """Decimals up to the first figure that is not zero."""
    return -math.floor(math.log10(value)) if value > 0 else 0


def interval_text(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    low, high = (number(end, signed=True, digits=digits_beside(interval)) for end in interval)
    return f"{low} to {high}"


def mean_and_spread(mean: float, spread: float | None) -> str:
    """Mean ± standard deviation, with a figure of the deviation where that needs no more than four decimals."""
    if spread is None:
        return number(mean)
    digits, wanted = len(number(mean).partition(".")[2]), _places(spread)
    digits = max(digits, wanted) if wanted <= 4 else digits
    return f"{number(mean, digits=digits)} ± {spread:.{digits}f}"


def p_text(p: float, threshold: float = 0.05) -> str:
    """Three decimals; more where rounding would carry it over the threshold."""
    if p < 0.001:
        return "< 0.001"
    for digits in range(3, 12):
        text = f"{p:.{digits}f}"
        if (float(text) < threshold) == (p < threshold):
            break
    return text
