"""The methods as the original repositories compute them: what the suite's ratios are ratios to.

Utterances are collated one by one and padded to the longest of a random batch, recurrences run over packed sequences,
modalities one after the other, Adam as it comes. Every length is that of the padding, as the collates of MMLatch and M3
set it; those of MISA and Self-MM are true.
"""
