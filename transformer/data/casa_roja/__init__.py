"""Casa roja: a grammar that writes Spanish sentences and their English, to learn translation from.

A sentence is drawn as a tree of lexicon entries, and the tree is said twice: `spanish(tree)` and
`english(tree)`. The tree also knows its combinations: (noun, adjective) and (object, verb). Some of
them belong to `dev` or to `test` alone, in every inflection and construction: the training data has
no `casas rojas` and no `la casa es roja`, so whoever translates `la casa roja` has composed it.

    la casa roja                     the red house
    no las abrimos                   we do not open them
    ¿lee Ana el libro de la niña?    does Ana read the girl's book?
    a mi amigo le gusta la sopa      my friend likes the soup

Every Spanish sentence has one right translation. A subject is left out only where the verb tells it
(yo, tú, nosotros), `su` is not used, and `lo` goes with verbs whose objects are never people.
"""

from transformer.data.casa_roja.grammar import Clause, Phrase, combinations, english, spanish
from transformer.data.casa_roja.lexicon import LEMMAS, word_for_word
from transformer.data.casa_roja.sentences import SPLITS, count_pairs, held_out, pairs

__all__ = [
    "LEMMAS",
    "SPLITS",
    "Clause",
    "Phrase",
    "combinations",
    "count_pairs",
    "english",
    "held_out",
    "pairs",
    "spanish",
    "word_for_word",
]
