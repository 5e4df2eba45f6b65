"""The official splits of nuScenes, as the numbers of their scenes (``scene-0061`` is 61).

``train`` is what remains of the annotated scenes without ``val``. Source: the nuScenes development kit, release 1.2.0.
"""

from __future__ import annotations

ANNOTATED = """
1-36 38-39 41-76 92-110 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 199-200 202-204 206-214 218-222
224-264 268-278 283-306 315-318 321 323-324 328-332 344-386 388-403 405-408 410-459 461-465 467-469 471-472 474-480
499-502 504-515 517-539 541-546 552-566 568 570-578 580 582-600 625-627 629-630 632-679 681 683-689 695-698 700-701
703-719 726-728 730-731 733-741 744 746-747 749-752 757-765 767-771 775 777-778 780-784 786-787 789-792 794-800 802-806
808-813 815-817 819-822 847-856 858 860-866 868-873 875-878 880 882-917 919-931 945 947 949 952-953 955-963 966-969
971-972 975-984 988-992 994-1025 1044-1102 1104-1110
"""
VAL = """
3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 777-778
780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073
"""
TEST = """
77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 827-831 833-842 844-846
932-933 935-943 1026-1043
"""
MINI_TRAIN = "61 553 655 757 796 1077 1094 1100"
MINI_VAL = "103 916"


def split_scenes(split: str) -> tuple[str, ...]:
    """Return the scene names of ``mini_train``, ``mini_val``, ``train``, ``val`` or ``test`` in the official order.

    Raises:
        ValueError: if there is no such split.
    """
    numbers = {"mini_train": MINI_TRAIN, "mini_val": MINI_VAL, "train": ANNOTATED, "val": VAL, "test": TEST}
    if split not in numbers:
        raise ValueError(f"nuScenes has the splits {', '.join(numbers)}, got {split!r}")
    held_out = set(_expand(VAL)) if split == "train" else set()
    return tuple(f"scene-{number:04d}" for number in _expand(numbers[split]) if number not in held_out)


def _expand(ranges: str) -> list[int]:
    """Expand ``"1-3 7"`` to ``[1, 2, 3, 7]``."""
    bounds = [part.split("-") for part in ranges.split()]
    return [number for ends in bounds for number in range(int(ends[0]), int(ends[-1]) + 1)]
