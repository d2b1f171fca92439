"""Constituency trees: bracketed files read, and trees as sentences that a model can translate into.

    ( (S (NP-SBJ-1 (DT the) (NN dog)) (VP (VBZ barks)) (. .)) )      a treebank's file
    the dog barks .                                                  source
    (S (NP XX XX )NP (VP XX )VP XX )S                                target
    (S (NP (XX the) (XX dog)) (VP (XX barks)) (XX .))                the target, put together again

`penn` reads and normalises, `linear` makes sentences of trees and trees of sentences, `orchard` is
a grammar of ours that grows trees. What scores them is evaluation/brackets.py.
"""

from transformer.data.treebank.linear import Parse, linearise, pair, put_together
from transformer.data.treebank.penn import files, read, read_text
from transformer.data.treebank.tree import ROOTS, TOP, Span, Tree

__all__ = [
    "ROOTS",
    "TOP",
    "Parse",
    "Span",
    "Tree",
    "files",
    "linearise",
    "pair",
    "put_together",
    "read",
    "read_text",
]
