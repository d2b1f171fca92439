"""Equal text spelled in one way before anything looks at it: canonical composition, NFC.

Unicode has several spellings of one character: é is one code point, or e and an accent. People see
no difference, so a tokenizer, a search for duplicates and a score must not see one either.
"""

import unicodedata

INVISIBLE = "\u200b\ufeff"  # zero-width space, byte order mark: the tokenizer drops them


def composed(text: str) -> str:
    """The text in NFC; what is in it already is returned as it is."""
    return unicodedata.normalize("NFC", text)


def composed_without_invisible(text: str) -> str:
    """NFC, also across what the tokenizer drops: an accent behind it goes to the letter before."""
    if "\u200b" in text or "\ufeff" in text:
        text = text.replace("\u200b", "").replace("\ufeff", "")
    return unicodedata.normalize("NFC", text)


def lowercased(text: str) -> str:
    """Lower case, character by character, in NFC: J̌ has no composed form, its lower case ǰ has.

    Python's own rule for a word's last Σ is left out: a tokenizer's table knows no words.
    """
    text = composed_without_invisible(text)
    return unicodedata.normalize("NFC", text.replace("Σ", "σ").lower())
