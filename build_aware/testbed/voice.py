"""Something that a voice activity detector takes for speech, made from nothing."""

from __future__ import annotations

import math
from typing import Final

SAMPLE_RATE: Final = 16000

_PITCH_HZ: Final = 120
_SYLLABLES_PER_S: Final = 4
_FORMANTS: Final = ((730, 90), (1090, 110), (2440, 170))
"""Frequency and bandwidth in Hz of the resonances of the vowel in "father"."""


def vowel(seconds: float) -> bytes:
    """16-bit mono samples of a voice that says "a-a-a": pulses through three resonances."""
    count = int(SAMPLE_RATE * seconds)
    samples = [
        float(int(n * _PITCH_HZ / SAMPLE_RATE) != int((n - 1) * _PITCH_HZ / SAMPLE_RATE))
        for n in range(count)
    ]
    for frequency, bandwidth in _FORMANTS:
        radius = math.exp(-math.pi * bandwidth / SAMPLE_RATE)
        turn = 2 * radius * math.cos(2 * math.pi * frequency / SAMPLE_RATE)
        before = last = 0.0
        for n, sample in enumerate(samples):
            before, last = last, sample + turn * last - radius * radius * before
            samples[n] = last
    loudest = max(map(abs, samples))
    return b"".join(
        int(
            20000
            * sample
            / loudest
            * (0.5 - 0.5 * math.cos(2 * math.pi * _SYLLABLES_PER_S * n / SAMPLE_RATE))
        ).to_bytes(2, "little", signed=True)
        for n, sample in enumerate(samples)
    )


def silence(seconds: float) -> bytes:
    """16-bit mono samples of nothing."""
    return bytes(2 * int(SAMPLE_RATE * seconds))
