"""The Transformer wing: encoder-decoder (the paper), decoder alone, encoder alone."""

from transformer.models.transformer.decoder_only import DecoderOnly
from transformer.models.transformer.encoder_decoder import EncoderDecoder
from transformer.models.transformer.encoder_only import EncoderOnly

__all__ = ["DecoderOnly", "EncoderDecoder", "EncoderOnly"]
