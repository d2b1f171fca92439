"""What we patch or replace in a library: the fault, and when our code can go.

    threefry            JAX runs a generator in a loop on CPUs, with several passes over memory
    top_k               XLA sorts whole rows of logits on CPUs
    cpu                 XLA has few threads for several devices of a CPU; pages are small
    compilation_cache   JAX writes programs in place, and never mends one that is cut short
    tensorboard         tensorboardX's writer waits for ever behind a full disk
    orbax               Orbax and its libraries read patterns and schemes in paths; a checkpoint
                        is renamed before it is synced, and not read back

Nothing here is known to a model, a loss or a loop but by its function.
"""
