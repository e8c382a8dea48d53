"""Many runs at once: a store that keeps them, a pool that trains them, and what they answer.

Ablation: what does each term add. Sweep: which settings are best. Comparison: which method is.
"""
