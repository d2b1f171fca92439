"""Every configuration key, its unit and its default: the base model of "Attention Is All You Need".

An experiment file starts from here and changes what differs:

    from experiments import base

    def get_config(variant: str = ""):
        config = base.get_config()
        config.model.d_model = 256
        return base.with_variants(config, variant)

Nothing in the package supplies a default of its own: a key that is not here does not exist.
`--config=experiments/X.py:smoke` shrinks any experiment to a size that a CPU trains in seconds.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """AIAYN's base model on WMT14 English-German, as printed."""
    config = ConfigDict()
    config.name = ""  # of the run; "" = a hash of the resolved configuration
    config.seed = 0  # of everything random: initial parameters, dropout, order of the data

    model = config.model = ConfigDict()
    # transformer: encoder and decoder (paper) | decoder: alone, a language model that goes on from
    # its source, the prompt (Radford et al. 2018), and has no encoder_layers | encoder: alone, what
    # it says read off by `readout`, and has no decoder_layers | rnn | gru | lstm
    model.family = "transformer"
    model.encoder_layers = 6  # N
    model.decoder_layers = 6  # N
    model.d_model = 512  # D, the width
    model.d_ff = 2048  # F, feed-forward width
    model.heads = 8  # H
    # G, key/value heads: 0 = as many as heads | 1: one for all (Shazeer 2019) | more: each for an
    # equal group of query heads (Ainslie et al. 2023)
    model.kv_heads = 0
    model.d_k = 64  # K, head size of queries and keys
    model.d_v = 64  # U, head size of values
    model.dropout = 0.1  # P_drop: on each sub-layer's output and on embeddings + positions (§5.4)
    model.attention_dropout = 0.0  # on attention weights; none in the paper
    model.layer_drop = 0.0  # probability of leaving a whole layer out of a step (Fan et al. 2020)
    # Of an encoder alone, what a target position is predicted from: position: the source's same one
    # (masked language models, Devlin et al. 2019) | class: a learned position before the source,
    # "[CLS]" | mean: of all positions; the last two for labels
    model.readout = "position"
    # Of an encoder alone, so many source tokens are one position, their vectors end to end and
    # projected (Dosovitskiy et al. 2021, Eq. 1)
    model.patch = 1
    # post: after the residual sum (paper) | pre: before the sub-layer (Xiong et al. 2020) |
    # sandwich: before and after it (Ding et al. 2021; "peri": Kim et al. 2025) | deepnorm: post,
    # residuals and initial values scaled by depth (Wang et al. 2022)
    model.norm = "post"
    model.norm_function = "layer_norm"  # layer_norm (paper) | rms_norm (Zhang and Sennrich 2019)
    model.norm_epsilon = 1e-6  # added to the variance
    model.qk_norm = False  # the same on each head's queries and keys (Henry et al. 2020)
    model.sublayers = "sequential"  # sequential (paper) | parallel (Wang and Komatsuzaki 2021)
    # relu (paper) | gelu (Hendrycks and Gimpel 2016) | silu (Elfwing et al. 2018), and the gated
    # geglu | swiglu (Shazeer 2020), which have a third matrix: 2/3 of d_ff is as large
    model.feed_forward = "relu"
    model.feed_forward_bias = True
    model.attention_bias = False  # on queries, keys, values and outputs
    # Source and target embeddings and output projection: one table (three_way, paper) | the
    # source has its own (two_way) | each has its own (none)
    model.tied = "three_way"
    model.scale_embeddings = True  # times √D (§3.4)
    model.logits_bias = False  # one for each piece of the vocabulary
    model.logit_soft_cap = 0.0  # logits are kept within ± this by tanh (Gemma 2, 2024); 0 = not
    # xavier_uniform | xavier_normal (Glorot and Bengio 2010) | lecun_normal (LeCun et al. 1998) |
    # he_normal (He et al. 2015), with embeddings of variance 1/D; all normal, deviation 0.02:
    # normal (Devlin et al. 2019) | gpt2: and less by depth at the end of sub-layers (Radford 2019)
    model.initializer = "xavier_uniform"
    # none | mup: learning rates found at base_d_model (and base_d_k) hold at any width, with Adam
    # and its kin (Yang et al. 2022, Table 8)
    model.width_scaling = "none"
    model.base_d_model = 512
    model.base_d_k = 64
    model.positions = ConfigDict()
    # sinusoidal: sines and cosines in turn (paper, §3.5) | sinusoidal_halves: sines, then cosines,
    # as Marian has them (those of fairseq and tensor2tensor have other wavelengths) | learned: a
    # table a side (Gehring et al. 2017; row E) | none;
    # in self-attention: rotary (Su et al. 2021) | t5: a bias a bucket of distances, for all layers
    # (Raffel et al. 2020) | shaw: relative keys (Shaw et al. 2018) | alibi (Press et al. 2022)
    model.positions.scheme = "sinusoidal"
    # Of a learned table, positions; all beyond share the last: data.max_length + extra_length
    model.positions.length = 306
    model.positions.rotary_base = 10_000.0  # of the geometric series of wavelengths
    model.positions.t5_buckets = 32
    model.positions.t5_max_distance = 128  # positions; all beyond share the last bucket
    model.positions.shaw_clip = 16  # positions; all beyond share the last vector
    model.dtype = "auto"  # of computation: float32 | bfloat16 | auto (bfloat16 on TPU and GPU)
    model.unroll = (
        False  # layers as straight code instead of a loop: same parameters, longer compile
    )
    # What of a layer the backward pass computes again: none | full: all | dots_saveable: all but
    # matrix products | dots_with_no_batch_dims_saveable: all but products with weights
    model.remat = "none"
    model.attention = ConfigDict()
    # auto (the device's best) | reference | xla | chunked | cudnn | splash; where mesh.sequence
    # splits the length: ring | ulysses, each also with what a device runs: "ring:chunked"
    model.attention.backend = "auto"
    model.recurrent = ConfigDict()  # of the families rnn, gru and lstm alone
    model.recurrent.d_hidden = 512  # R, of the state; of both directions together
    model.recurrent.bidirectional = True  # encoder
    # none | bahdanau | luong_dot | luong_general | luong_concat
    model.recurrent.attention = "luong_general"
    model.recurrent.input_feeding = False  # the output before goes into the decoder's input
    model.recurrent.variational_dropout = False  # one mask for all positions, on states, too
    model.recurrent.unroll = 1  # positions in one turn of the loop

    data = config.data = ConfigDict()
    # tfds | text | treebank | files | casa_roja | recall | orchard | agreement | digits | mixture:
    # see below for each
    data.source = "tfds"
    data.tfds = ConfigDict()
    data.tfds.name = "wmt14_translate/de-en"  # any builder with a Translation feature
    data.tfds.source_language = "en"
    data.tfds.target_language = "de"
    data.tfds.train = "train"  # split names; "" = none
    data.tfds.dev = "validation"
    data.tfds.test = "test"
    data.tfds.data_dir = ""  # where prepared data sets are; "" = TFDS's own default
    data.text = ConfigDict()  # two aligned files a split: plain or gzip, UTF-8, one sentence a line
    data.text.train_source = ""
    data.text.train_target = ""
    data.text.dev_source = ""
    data.text.dev_target = ""
    data.text.test_source = ""  # "" = no test set
    data.text.test_target = ""
    data.casa_roja = ConfigDict()  # our own Spanish-English grammar
    data.casa_roja.train_size = 300_000  # sentence pairs
    data.casa_roja.dev_size = 500
    data.casa_roja.test_size = 2_000
    data.recall = ConfigDict()  # made-up symbols to remember: see transformer/data/recall.py
    data.recall.task = "copy"  # copy | reverse | associative
    data.recall.item_count = 10  # symbols to remember, or pairs of a key and a value
    data.recall.symbols = 8  # different letters, at most 26
    data.recall.distances = (10, 30, 100, 300, 1000)  # blanks to remember over
    # How often each comes in the training set: (3, 1) = three pairs of the first for one of the
    # second; () = equally often, as in the other splits
    data.recall.distance_weights = ()
    data.recall.train_size = 20_000  # pairs
    data.recall.dev_size = 200
    data.recall.test_size = 1_000
    # Constituency trees (AIAYN §6.3): bracketed files, plain or gzip, UTF-8; paths and globs, with
    # commas between them: "wsj/0[2-9]/*.mrg,wsj/1?/*.mrg"
    data.treebank = ConfigDict()
    data.treebank.train = ""
    data.treebank.dev = ""
    data.treebank.test = ""  # "" = no test set
    data.orchard = ConfigDict()  # our own treebank: see transformer/data/treebank/orchard.py
    data.orchard.train_size = 20_000  # trees
    data.orchard.dev_size = 200
    data.orchard.test_size = 1_000
    data.files = ConfigDict()  # any text files, for language models: transformer/data/passages.py
    data.files.patterns = ()  # globs, each of some file, plain or gzip; () = our own source code
    data.files.lines = 8  # consecutive lines of a passage
    data.files.prompt_lines = 2  # of these, the source; what follows is the target
    data.files.unprompted = 0.5  # share of training passages whose prompt is empty: all is target
    data.files.dev_size = 200  # passages at most, evenly from those of a tenth of the files
    data.files.test_size = 1_000
    # Sentences of casa roja's grammar, "right" or "wrong": transformer/data/agreement.py
    data.agreement = ConfigDict()
    data.agreement.train_size = 50_000  # sentences
    data.agreement.dev_size = 500
    data.agreement.test_size = 2_000
    # Scikit-learn's 1,797 handwritten digits, a letter a pixel: transformer/data/digits.py
    data.digits = ConfigDict()
    data.digits.patch_side = 2  # pixels; those of a patch stand together: model.patch is its square
    # Training pictures also come moved by up to so many pixels, each way: 1 = 9 times as many
    data.digits.shifts = 0
    data.digits.dev_size = 200  # pictures; what is left of them is for training
    data.digits.test_size = 400
    # Several corpora trained on together, each pair coming `rate` times an epoch (2.5: twice, and
    # half of them a third time, drawn anew in every epoch); dev and test are those of the first
    # part, by name, that has them. Each part is its source's section as above, all of its keys:
    #   config.data.mixture = ConfigDict({
    #       "news": {"source": "tfds", "rate": 1.0, "tfds": config.data.tfds.to_dict()},
    #       "talks": {"source": "text", "rate": 2.5, "text": {"train_source": "a.en", ...}}})
    data.mixture = ConfigDict()
    # both: pairs of source and target | source | target: that side alone, which is its own target
    data.side = "both"
    # Share of source tokens masked, anew in each batch, and the only ones that count in the loss:
    # 0.15 by Devlin et al. 2019; needs data.side, see transformer/data/masking.py
    data.masked = 0.0
    # Training pairs left out, or kept (False); all are counted and listed in data_report.json.
    data.leave_out = ConfigDict()
    data.leave_out.not_utf8 = True  # bytes that are not UTF-8; kept ones are read as U+FFFD
    data.leave_out.control_characters = False  # kept: the tokenizer drops them
    data.leave_out.empty = True  # a side without text
    data.leave_out.duplicates = False  # second and later occurrences of a pair
    data.leave_out.held_out = True  # pairs that stand in the dev or test set
    data.max_ratio = 0.0  # tokens of the longer side over the shorter's, at most; 0 = any
    data.tokenizer = ConfigDict()  # SentencePiece, one vocabulary for both languages
    data.tokenizer.kind = "bpe"  # bpe | unigram
    data.tokenizer.vocab_size = 37_000  # V: pieces, special and byte pieces included
    data.tokenizer.character_coverage = (
        1.0  # share of characters with a piece; bytes spell the rest
    )
    data.tokenizer.lowercase = False  # before anything else, both sides
    data.tokenizer.train_sentences = (
        2_000_000  # at most, of each side, evenly from the training split
    )
    # A piece ends where the script changes (SentencePiece's default); False: "(NP" can be one
    data.tokenizer.split_scripts = True
    # Pieces drawn anew in each epoch of training: BPE-dropout's probability, or unigram's alpha;
    # 0 = none. Costs a pass of tokenising in Python an epoch, and shapes that may differ by epoch.
    data.tokenizer.sampling = 0.0
    data.batching = "buckets"  # buckets: pad to few lengths | packed: several sentences a row
    data.tokens_per_batch = 25_000  # rows x length of each side, padding included, at most
    data.max_length = 256  # tokens of one side, </s> included; longer training pairs are left out
    data.shapes = 12  # compiled shapes at most, when bucketing
    data.packed_length = 256  # tokens of a packed row, each side
    data.row_multiple = 8  # rows of every batch are a multiple of this
    data.length_multiple = 8  # and lengths of this
    data.prefetch = 2  # batches kept ready on the device
    # Tokenised corpora, tokenizers; "" = $XDG_CACHE_HOME/transformer, or ~/.cache/transformer
    data.cache_dir = ""

    training = config.training = ConfigDict()
    training.steps = 100_000  # optimizer updates
    training.minutes = 0.0  # stop after this much wall time even if steps are left; 0 = no limit
    training.label_smoothing = 0.1  # epsilon_ls (§5.4), over all V pieces, as PyTorch has it
    training.z_loss = 0.0  # times (log of the softmax's normaliser)², added (PaLM, 2022, §5: 1e-4)
    training.loss_chunks = 8  # the output projection runs in this many pieces of the target length
    training.accumulate = 1  # equal parts of a batch computed one after another
    training.clip_norm = 0.0  # global gradient norm; 0 = no clipping
    training.ema_decay = 0.0  # of an average of the parameters, evaluated in their place; 0 = none
    training.log_every = 100  # steps
    training.eval_every = 5_000  # steps; on the development set; 0 = never
    training.eval_bleu = False  # also translate the development set at each evaluation
    training.eval_samples = 3  # development sentences translated and shown at each evaluation

    optimizer = config.optimizer = ConfigDict()
    # Any optimizer and schedule of optax. Its options are a section to replace as a whole:
    #   config.optimizer.options = ConfigDict({"b1": 0.9, "weight_decay": 0.1})
    optimizer.name = "adam"
    optimizer.options = ConfigDict({"b1": 0.9, "b2": 0.98, "eps": 1e-9})  # §5.3
    optimizer.schedule = "rsqrt"  # the paper's; or cosine_decay, warmup_cosine_decay ... of optax
    optimizer.schedule_options = ConfigDict({"scale": 512**-0.5, "warmup_steps": 4_000})  # Eq. 3

    checkpoints = config.checkpoints = ConfigDict()
    checkpoints.every = 1_500  # steps
    checkpoints.keep_last = 5
    checkpoints.keep_best = 1  # by early_stopping.metric; kept beside the last ones; 0 = none
    checkpoints.average = 5  # evaluation uses the mean of this many last checkpoints; 1 = the last

    stopping = config.early_stopping = ConfigDict()
    stopping.metric = "loss"  # of the development set: loss (lower is better) | bleu (higher)
    stopping.patience = 0  # evaluations without a better one before stopping; 0 = never stop early

    divergence = config.divergence = ConfigDict()  # a loss or gradient that is not finite, a spike
    # stop: with an error | skip: leave that update out (the schedule waits for it) | go_back: to
    # the last regular or best checkpoint, and pass over the batches that did it; each is noted in
    # metrics.jsonl with its examples
    divergence.action = "stop"
    divergence.spike = 0.0  # a loss this many times its running mean is a spike; 0 = none is
    divergence.window = 100  # steps that the running mean looks back, and the first to be judged
    divergence.pass_over = 1  # go_back: batches passed over, up to the one that showed it
    divergence.at_most = 10  # skip: so many in a row, go_back: so many in all; one more stops

    decoding = config.decoding = ConfigDict()
    decoding.beam = 4  # W; 1 = greedy
    decoding.length_penalty = "gnmt"  # gnmt ((5 + length) / 6)^alpha (paper) | power (length^alpha)
    decoding.alpha = 0.6
    decoding.extra_length = 50  # output tokens at most: the source's + this (§6.1)
    decoding.n_best = 1  # translations given for each sentence, best first; at most the beam
    decoding.tokens_per_batch = 4_096  # source tokens translated together, padding included
    decoding.weights = "float"  # float | int8 (Transformers alone): smaller, on CPUs mostly faster

    evaluation = config.evaluation = ConfigDict()
    # sacreBLEU's, which says what a word is: auto (by the script of the references, once per run) |
    # 13a (words between spaces) | intl | zh | ja-mecab (extra `ja`) | ko-mecab (extra `ko`) |
    # char (for scripts without spaces) | none
    evaluation.bleu_tokenizer = "auto"

    mesh = config.mesh = ConfigDict()  # devices along each axis; -1 = all that are left
    mesh.data = -1  # batch rows split; parameters copied
    mesh.fsdp = 1  # batch rows and parameters split
    mesh.tensor = 1  # heads, feed-forward and vocabulary split
    mesh.sequence = 1  # positions split, in encoder, decoder and loss: for long sequences
    config.sharding = ConfigDict()  # logical axis -> mesh axes; () = not split
    config.sharding.rules = (
        ("batch", ("data", "fsdp")),
        ("length", ("sequence",)),
        ("embed", ("fsdp",)),
        ("hidden", ()),
        ("heads", ("tensor",)),
        ("kv_heads", ("tensor",)),
        ("head_size", ()),
        ("mlp", ("tensor",)),
        ("gates", ()),
        ("state", ("tensor",)),
        ("vocab", ("tensor",)),
        ("layers", ()),
    )

    distributed = config.distributed = ConfigDict()
    distributed.enabled = False  # several processes, one run: each starts the same command
    distributed.coordinator = ""  # host:port of process 0; "" = found from the environment
    distributed.processes = 0  # how many; 0 = found from the environment
    distributed.process = -1  # which one this is; -1 = found from the environment
    distributed.timeout = 300.0  # seconds to wait for the others at the start
    return with_variants(config.lock(), variant)


Variants = Mapping[str, Callable[[ConfigDict], None]]


def with_variants(config: ConfigDict, variant: str, variants: Variants | None = None) -> ConfigDict:
    """Applies the comma-separated variants that followed the `:` of `--config=FILE:A,B`."""
    known = {"smoke": smoke, **(variants or {})}
    for name in filter(None, variant.split(",")):
        if name not in known:
            raise ValueError(f"unknown variant {name!r}: this experiment has {', '.join(known)}")
        known[name](config)
    return config


def smoke(config: ConfigDict) -> None:
    """The same code at a size that a CPU trains in seconds, on sentences that ship with us."""
    config.model.encoder_layers = config.model.decoder_layers = 2
    config.model.d_model = 32
    config.model.d_ff = 64
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 8
    config.model.recurrent.d_hidden = 32
    config.data.source = "casa_roja"
    config.data.casa_roja.train_size = 2_000
    config.data.casa_roja.dev_size = config.data.casa_roja.test_size = 64
    config.data.tokenizer.vocab_size = 400
    config.data.tokens_per_batch = 512
    config.data.max_length = 64
    config.data.packed_length = 64
    config.data.shapes = 1
    config.training.steps = 60
    config.training.log_every = 5
    config.training.eval_every = 30
    config.optimizer.schedule = "rsqrt"
    config.optimizer.schedule_options = ConfigDict({"scale": 0.02, "warmup_steps": 20})
    config.checkpoints.every = 30
    config.checkpoints.average = 2
    config.decoding.tokens_per_batch = 1_024
    config.decoding.extra_length = 10
