"""Image slots: the k-th image token of a prompt stands for all image tokens of the k-th picture."""

from __future__ import annotations

from collections.abc import Sequence

from stages.artifacts.errors import UsageError


def slot_sources(ids: Sequence[int], image_token_id: int, tokens_per_image: Sequence[int]) -> list[int]:
    """Where each token of the expanded prompt comes from.

    Args:
        ids: a prompt with one image token per picture.
        image_token_id: that token.
        tokens_per_image: how many image tokens each picture has, in prompt order.

    Returns:
        Indices into `ids`, in order; the k-th slot's index is repeated `tokens_per_image[k]` times.

    Raises:
        UsageError: there are not as many slots as pictures, or a picture has no tokens.
    """
    slots = sum(token == image_token_id for token in ids)
    if slots != len(tokens_per_image):
        raise UsageError(
            f"The conversation has {slots} picture{'s' * (slots != 1)}, {len(tokens_per_image)} "
            f"{'was' if len(tokens_per_image) == 1 else 'were'} given.",
            "Every picture needs its place in the conversation, in the same order.",
            'Give as many pictures as there are {"type": "image"} parts.',
        )
    if any(count < 1 for count in tokens_per_image):
        raise UsageError(
            f"A picture has {min(tokens_per_image)} image tokens.",
            "A picture is at least one tile, a tile at least one token.",
            "Tile the pictures with this model's own settings.",
        )
    counts = iter(tokens_per_image)
    sources: list[int] = []
    for index, token in enumerate(ids):
        sources.extend([index] * (next(counts) if token == image_token_id else 1))
    return sources


def expand_slots(ids: Sequence[int], image_token_id: int, tokens_per_image: Sequence[int]) -> list[int]:
    """The prompt with the k-th image token repeated `tokens_per_image[k]` times. Raises: as `slot_sources`."""
    return [ids[source] for source in slot_sources(ids, image_token_id, tokens_per_image)]
