"""Fields of a request by category."""

from __future__ import annotations

RATIO_STEPS = 501
"""A reason ratio is k/501: the left edges of 501 bins, as the released data has it."""

FIELDS: dict[str, tuple[str, ...]] = {
    "language": ("input_tokens", "output_tokens"),
    "reason": ("input_tokens", "output_tokens", "reason_ratio"),
    "multimodal": (
        "text_tokens",
        "output_tokens",
        "image_count",
        "audio_count",
        "video_count",
        "image_tokens",
        "audio_tokens",
        "video_tokens",
    ),
}
"""Fields of a request by category, in the order of their lanes: part of the random stream, never reordered."""

MODALITIES = ("image", "audio", "video")


def scalar_field_count(category: str) -> int:
    """How many leading fields of a category are drawn once per request."""
    return 5 if category == "multimodal" else len(FIELDS[category])
