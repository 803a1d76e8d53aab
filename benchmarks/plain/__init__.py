"""The methods as the original repositories compute them: what the suite's ratios are ratios to.

Utterances are collated one by one and padded to the longest of a random batch, every length is that maximum (as the
originals' collates set it), recurrences run over packed sequences, modalities one after the other, Adam as it comes.
"""
