"""One seed for every generator that training draws from."""


def seed_everything(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and PyTorch; `threads` pins PyTorch's CPU threads.

    Sums are taken in another order with another number of threads, so losses agree to about three
    decimals only: pin the threads where numbers are to be compared.
    """
    from lightning.fabric import seed_everything as seed_all

    seed_all(seed, workers=True, verbose=False)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
